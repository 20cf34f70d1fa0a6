// A free space B+tree of XFS.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "guest/filesystem/xfs_superblock.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/ranges.h"

namespace vc::guest {

// What a tree of an allocation group says, in blocks of the filesystem.
struct XfsFreeTree {
  enum class Order { kByBlock, kByLength };

  Ranges ranges;         // free
  Ranges blocks;         // of the tree itself
  uint64_t free = 0;     // how many
  uint64_t longest = 0;  // of the ranges

  // An error unless the records are sound and in order.  `root` counts within the group; the tree
  // has `most` blocks at most.
  static Result<XfsFreeTree> read(const ByteView& view, const XfsSuperblock& super, uint64_t group,
                                  Order order, uint64_t root, uint32_t levels, uint64_t most);
};

}  // namespace vc::guest
