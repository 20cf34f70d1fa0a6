// Finds the files of an NTFS volume that Windows creates again when it starts.
#pragma once

#include <vector>

#include "base/result.h"
#include "guest/filesystem/ntfs/ntfs_volume.h"
#include "guest/reading/found_file.h"

namespace vc::guest {

// Finds them in the root directory of a volume that was shut down cleanly. Their contents are whole
// clusters that belong to the file alone, according to its record, to the bitmap (`free`, in
// bytes), and to the records of the volume's own metadata. Returns an error if one file has an
// unsupported layout: then none may be dropped.
Result<std::vector<FoundFile>> find_ntfs_files(const NtfsVolume& volume, const Ranges& free,
                                               const FileKinds& kinds);

}  // namespace vc::guest
