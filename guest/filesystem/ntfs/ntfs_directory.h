// The root directory of an NTFS volume.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "guest/filesystem/ntfs/ntfs_volume.h"

namespace vc::guest {

// What a directory says of a file.
struct NtfsEntry {
  uint64_t record;    // number in the master file table
  uint16_t sequence;  // of the record, when the entry was made
};

// Looks for a file of the root directory.  `name` is in lower case; case does not count.  Returns
// nullopt if there is none.
Result<std::optional<NtfsEntry>> find_in_root(const NtfsVolume& volume, std::string_view name);

}  // namespace vc::guest
