// Distinguishes server names from file names in arguments.
#pragma once

#include <string>

#include "base/result.h"

namespace vc::nbd {

// Returns whether `name` is an NBD URI.  Other URIs, and names with a protocol that qemu-img
// accepts, are an error with advice.  All other names are paths ("./nbd:x" for a path that looks
// like a protocol).
Result<bool> is_nbd_uri(const std::string& name);

// Adds the export `name` to an NBD URI that names no export yet.
Result<std::string> uri_with_export(const std::string& uri, const std::string& name);

}  // namespace vc::nbd
