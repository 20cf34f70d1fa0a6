// The free space of an allocation group of XFS.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "guest/filesystem/xfs_superblock.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/ranges.h"

namespace vc::guest {

// Adds the free blocks of an allocation group, counted in the filesystem, and to `own` those of its
// headers, of its trees of free space and of its free list.  Returns how many blocks are free, with
// those that the trees and the free list have.  An error unless the metadata of the group
// agree: of version 4, which has no checksums, both trees of free space are read.
Result<uint64_t> read_xfs_free_space(const ByteView& view, const XfsSuperblock& super,
                                     uint64_t group, Ranges::Builder& out, Ranges::Builder& own);

}  // namespace vc::guest
