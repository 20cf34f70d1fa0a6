// The superblock of XFS.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "guest/reading/block.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

// All places and counts are in blocks, unless they say otherwise.
struct XfsSuperblock {
  uint64_t block_size = 0;  // bytes
  uint64_t blocks = 0;
  uint64_t group_blocks = 0;
  uint64_t groups = 0;
  uint64_t sector = 0;  // bytes
  uint64_t log_at = 0;
  uint64_t log_blocks = 0;
  uint64_t free_blocks = 0;
  bool has_exact_count = false;  // `free_blocks` counts on a clean filesystem
  bool is_v5 = false;
  std::string metadata_uuid;     // bytes
  uint64_t root = 0;             // inode of the root directory
  uint64_t inode_size = 0;       // bytes
  uint64_t directory_block = 0;  // bytes
  unsigned group_bits = 0;       // of a block's number in its group
  unsigned inode_bits = 0;       // of an inode's number in its block
  bool has_types = false;        // directories have the types of files

  // `head` is the first sector of `view`.
  static Result<XfsSuperblock> read(const ByteView& view, const Fields& head);

  uint64_t group_length(uint64_t group) const {
    return std::min(group_blocks, blocks - group * group_blocks);
  }
  // The block with a number as inodes and maps have it: its group, and its number there.  Returns
  // `blocks` if there is no such block.
  uint64_t block_of(uint64_t number) const;
};

}  // namespace vc::guest
