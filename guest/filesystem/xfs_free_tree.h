// Reads a free space B+tree of XFS.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "guest/filesystem/xfs_superblock.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/ranges.h"

namespace vc::guest {

// The content of a tree of an allocation group, in blocks of the filesystem.
struct XfsFreeTree {
  enum class Order { kByBlock, kByLength };

  Ranges ranges;         // free
  Ranges blocks;         // blocks of the tree itself
  uint64_t free = 0;     // number of free blocks
  uint64_t longest = 0;  // length of the longest range

  // Reads a tree. Returns an error unless its records are valid and in order. `root`: block number
  // within the group. `most`: limit on the blocks of the tree.
  static Result<XfsFreeTree> read(const ByteView& view, const XfsSuperblock& super, uint64_t group,
                                  Order order, uint64_t root, uint32_t levels, uint64_t most);
};

}  // namespace vc::guest
