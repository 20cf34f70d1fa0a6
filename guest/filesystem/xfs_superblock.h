// Reads the superblock of XFS.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "guest/reading/block.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

// Places and counts are in blocks, except where noted.
struct XfsSuperblock {
  uint64_t block_size = 0;  // bytes
  uint64_t blocks = 0;
  uint64_t group_blocks = 0;
  uint64_t groups = 0;
  uint64_t sector = 0;  // bytes
  uint64_t log_at = 0;
  uint64_t log_blocks = 0;
  uint64_t free_blocks = 0;
  bool has_exact_count = false;  // `free_blocks` is exact on a clean filesystem
  bool is_v5 = false;
  std::string metadata_uuid;     // bytes
  uint64_t root = 0;             // inode of the root directory
  uint64_t inode_size = 0;       // bytes
  uint64_t directory_block = 0;  // bytes
  unsigned group_bits = 0;       // bits of a block number within its group
  unsigned inode_bits = 0;       // bits of an inode number within its block
  bool has_types = false;        // directory entries have file types

  // `head` is the first sector of `view`.
  static Result<XfsSuperblock> read(const ByteView& view, const Fields& head);

  uint64_t group_length(uint64_t group) const {
    return std::min(group_blocks, blocks - group * group_blocks);
  }
  // Returns the block for a number in an inode or map, which consists of a group and a block number
  // in it. Returns `blocks` if there is no such block.
  uint64_t block_of(uint64_t number) const;
};

}  // namespace vc::guest
