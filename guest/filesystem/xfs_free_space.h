// Reads the free space of an allocation group of XFS.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "guest/filesystem/xfs_superblock.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/ranges.h"

namespace vc::guest {

// Adds the free blocks of an allocation group, numbered within the filesystem, to `out`. Adds the
// blocks of its headers, of its free space trees and of its free list to `own`. Returns the number
// of free blocks, including those of the trees and of the free list. Returns an error unless the
// metadata of the group agree. For version 4, which has no checksums, reads both free space trees.
Result<uint64_t> read_xfs_free_space(const ByteView& view, const XfsSuperblock& super,
                                     uint64_t group, Ranges::Builder& out, Ranges::Builder& own);

}  // namespace vc::guest
