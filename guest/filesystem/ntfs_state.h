// Whether what an NTFS volume says of itself is the truth.
#pragma once

#include <string>

#include "base/result.h"
#include "guest/filesystem/ntfs_volume.h"

namespace guest {

// An error unless Windows, or a driver of Linux, has shut the volume down.  The label is returned.
qcow2::Result<std::string> check_ntfs_clean(const NtfsVolume& volume);

// Whether Windows has saved its session on the volume, and would go on with it.
qcow2::Result<bool> is_ntfs_hibernated(const NtfsVolume& volume);

}  // namespace guest
