// Checks whether the metadata of an NTFS volume can be trusted.
#pragma once

#include <string>

#include "base/result.h"
#include "guest/filesystem/ntfs/ntfs_volume.h"

namespace vc::guest {

struct NtfsState {
  std::string label;
  // A Linux driver has emptied the log. ntfs-3g does so when it mounts the volume, and leaves no
  // other mark.
  bool has_empty_log = false;
};

// Returns an error unless Windows or a Linux driver has shut the volume down.
Result<NtfsState> check_ntfs_clean(const NtfsVolume& volume);

// Returns true if Windows has saved its session on the volume and would resume it.
Result<bool> is_ntfs_hibernated(const NtfsVolume& volume);

}  // namespace vc::guest
