// Distinguishes server names from file names in arguments.
#pragma once

#include <string>

#include "base/result.h"

namespace vc::nbd {

// Returns true if `name` is an NBD URI. Returns an error with advice for other URIs, and for names
// with a protocol that qemu-img accepts. All other names are paths (write "./nbd:x" for a path that
// looks like a protocol).
Result<bool> is_nbd_uri(const std::string& name);

// Adds the export `name` to an NBD URI that names no export yet.
Result<std::string> uri_with_export(const std::string& uri, const std::string& name);

}  // namespace vc::nbd
