// Swap files of Linux on ext2, ext3 and ext4.
#pragma once

#include <vector>

#include "base/result.h"
#include "guest/filesystem/ext_inode.h"
#include "guest/reading/found_file.h"

namespace vc::guest {

// Finds the swap files of a filesystem that is clean: those that its /etc/fstab names, if it is a
// root, and in the usual places.  Their contents are what lies behind their header.  `free` and
// `metadata` are blocks of the volume.  An error if one of the files is not surely a swap file's
// alone, or has a saved session.
Result<std::vector<FoundFile>> find_ext_swap_files(const ExtFiles& files,
                                                   const ExtSuperblock& super, const Ranges& free,
                                                   const Ranges& metadata);

}  // namespace vc::guest
