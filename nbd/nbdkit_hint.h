// What is missing when nbdkit does not start.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace copy {

// The qcow2 plugin of the tree that this program was built in; nothing: it is not there.
std::optional<std::string> built_plugin();

// If `command` starts nbdkit with a plugin or a filter that is not where nbdkit looks for it: a
// sentence for the user, which says so, and what to do.  Else empty.
std::string nbdkit_hint(const std::vector<std::string>& command);

}  // namespace copy
