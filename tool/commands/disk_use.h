// Whether a domain of libvirt needs a disk as it is.
#pragma once

#include <string>

#include "base/result.h"
#include "tool/terminal/console.h"

namespace vc::tool {

// Returns an error with advice if a domain that runs, or whose memory is saved, has the file as a
// disk or behind one. Prints warnings about libvirts that cannot be queried. Returns no error
// if no such file exists.
Result<void> check_disk_use(const std::string& disk, const Console& console);

// The same for figures of a disk: prints a warning instead, and returns whether they are
// approximate.
Result<bool> warn_of_disk_use(const std::string& disk, const Console& console);

}  // namespace vc::tool
