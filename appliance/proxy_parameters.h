// How nbdkit's nbd plugin is told to connect.
#pragma once

#include <string>
#include <vector>

namespace vc::appliance {

// Its parameters for an NBD URI.  What a URI of libnbd's says of files (keys, certificates) the
// plugin takes as parameters of its own only.
std::vector<std::string> proxy_parameters(const std::string& uri);

}  // namespace vc::appliance
