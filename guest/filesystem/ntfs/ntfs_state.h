// Whether what an NTFS volume says of itself is the truth.
#pragma once

#include <string>

#include "base/result.h"
#include "guest/filesystem/ntfs/ntfs_volume.h"

namespace vc::guest {

struct NtfsState {
  std::string label;
  // A driver of Linux has emptied the log.  ntfs-3g does so when it mounts the volume, and leaves
  // no other mark in it.
  bool has_empty_log = false;
};

// An error unless Windows, or a driver of Linux, has shut the volume down.
Result<NtfsState> check_ntfs_clean(const NtfsVolume& volume);

// Whether Windows has saved its session on the volume, and would go on with it.
Result<bool> is_ntfs_hibernated(const NtfsVolume& volume);

}  // namespace vc::guest
