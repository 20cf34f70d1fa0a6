// Which arguments name a server, and which a file.
#pragma once

#include <string>

#include "base/result.h"

namespace copy {

// Whether `name` is an NBD URI.  Other URIs, and names with a protocol that qemu-img would take,
// are an error that says what to do; everything else is a path ("./nbd:x" for those that look like
// one).
qcow2::Result<bool> is_nbd_uri(const std::string& name);

// An NBD URI, which names no export yet, with `name` for one.
qcow2::Result<std::string> uri_with_export(const std::string& uri, const std::string& name);

}  // namespace copy
