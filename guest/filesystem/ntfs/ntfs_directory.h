// Reads the root directory of an NTFS volume.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "guest/filesystem/ntfs/ntfs_volume.h"

namespace vc::guest {

// A directory's entry for a file.
struct NtfsEntry {
  uint64_t record;    // number in the master file table
  uint16_t sequence;  // sequence number of the record when the entry was made
};

// Finds a file in the root directory, ignoring case. `name` must be in lower case. Returns nullopt
// if there is no such file.
Result<std::optional<NtfsEntry>> find_in_root(const NtfsVolume& volume, std::string_view name);

}  // namespace vc::guest
