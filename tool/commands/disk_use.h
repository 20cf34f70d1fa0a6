// Checks whether a libvirt domain needs a disk unchanged.
#pragma once

#include <string>

#include "base/result.h"
#include "tool/terminal/console.h"

namespace vc::tool {

// Returns an error with advice if a running or saved domain uses the file, as a disk or as a
// backing file. Prints a warning for each libvirt that cannot be queried. A missing file is no
// error.
Result<void> check_disk_use(const std::string& disk, const Console& console);

// Same check for commands that only read: prints a warning instead. Returns true if the command's
// figures are approximate.
Result<bool> warn_of_disk_use(const std::string& disk, const Console& console);

}  // namespace vc::tool
