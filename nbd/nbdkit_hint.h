// Explains why nbdkit does not start.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace vc::nbd {

// Returns the qcow2 plugin in the build tree of this program; nullopt if it is not there.
std::optional<std::string> built_plugin();

// Returns a sentence for the user if `command` starts nbdkit with a plugin or a filter that is
// missing in nbdkit's folders; it names the file and the remedy.  Otherwise returns an empty
// string.
std::string nbdkit_hint(const std::vector<std::string>& command);

}  // namespace vc::nbd
