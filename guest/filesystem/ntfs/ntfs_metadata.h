// Finds the clusters of an NTFS volume's own files.
#pragma once

#include "base/result.h"
#include "guest/filesystem/ntfs/ntfs_volume.h"
#include "guest/reading/ranges.h"

namespace vc::guest {

// Returns the clusters of the boot area and of all attributes of the records that every volume has:
// the master file table, its mirror, the log, the bitmap, the root directory and others.
Result<Ranges> ntfs_metadata(const NtfsVolume& volume);

}  // namespace vc::guest
