// How a text differs from what it was, as `diff -u` shows it.
#pragma once

#include <string>
#include <string_view>

namespace tune {

// For texts of as many lines that differ in few of them, each in its place.  What patch(1) takes;
// empty if they are the same.
std::string unified_diff(std::string_view before, std::string_view after, const std::string& name);

}  // namespace tune
