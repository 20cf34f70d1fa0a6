// Mounts that only the test's process and its children see.
#pragma once

#include <string>

namespace vc::support {

// Gives this process a mount namespace of its own, once. Returns why that is not possible, or an
// empty string.
const std::string& enter_mount_namespace();

}  // namespace vc::support
