// Formats the difference of two texts like `diff -u`.
#pragma once

#include <string>
#include <string_view>

namespace vc::libvirt {

// Supports texts with the same number of lines, of which a few differ in place. Returns input for
// patch(1), or an empty string if the texts are equal.
std::string unified_diff(std::string_view before, std::string_view after, const std::string& name);

}  // namespace vc::libvirt
