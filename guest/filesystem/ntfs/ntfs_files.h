// Files of NTFS that Windows makes again when it starts.
#pragma once

#include <vector>

#include "base/result.h"
#include "guest/filesystem/ntfs/ntfs_volume.h"
#include "guest/reading/found_file.h"

namespace vc::guest {

// Finds them in the root directory of a volume that was shut down cleanly.  The contents are whole
// clusters that belong to the file alone as far as its record, the bitmap (`free`, in bytes) and
// the records of the volume's own metadata tell.  An error if one of them is stored in a way that
// is not understood: none may be dropped then.
Result<std::vector<FoundFile>> find_ntfs_files(const NtfsVolume& volume, const Ranges& free,
                                               const FileKinds& kinds);

}  // namespace vc::guest
