// The superblock of XFS.
#pragma once

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
  std::string metadata_uuid;  // bytes

  // `head` is the first sector of `view`.
  static Result<XfsSuperblock> read(const ByteView& view, const Fields& head);
};

}  // namespace vc::guest
