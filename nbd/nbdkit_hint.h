// Explains why nbdkit does not start.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vc::nbd {

// Returns our plugin `name` ("qcow2", "checked-nbd") in this program's build tree. nullopt if it is
// not there.
std::optional<std::string> built_plugin(std::string_view name);

// Returns a sentence for the user if `command` starts nbdkit with a plugin or filter that nbdkit's
// folders lack. The sentence names the missing file and the remedy. Otherwise returns an empty
// string.
std::string nbdkit_hint(const std::vector<std::string>& command);

}  // namespace vc::nbd
