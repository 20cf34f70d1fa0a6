// The version of libvirt.
#pragma once

#include <string>

namespace vc::libvirt {

// Returns the version of the loaded library, such as "1.48.6", or "unknown".
std::string library_version();

}  // namespace vc::libvirt
