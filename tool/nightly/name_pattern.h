// Patterns for names of domains.
#pragma once

#include <string_view>

namespace vc::tool {

// Returns true if the whole `name` matches: "*" stands for any characters, "?" for one byte. Takes
// time in proportion to the product of the lengths, for any pattern.
bool matches_pattern(std::string_view pattern, std::string_view name);

}  // namespace vc::tool
