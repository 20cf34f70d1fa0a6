// What a disk is put to.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/result.h"

namespace bench {

struct Load {
  // Ends after so many requests, or after that time, whichever is first; at least one is set.
  std::optional<uint64_t> count;
  std::optional<std::chrono::duration<double>> duration;
  unsigned depth = 64;    // requests under way at once
  uint64_t block = 4096;  // bytes of a request
  uint64_t step = 0;      // bytes from one request to the next, 0: `block`; random: of the grid
  uint64_t offset = 0;    // of the first request, bytes; random: where the grid begins
  uint64_t span = UINT64_MAX;  // only the disk's first bytes are touched, so many
  bool random = false;
  uint64_t seed = 1;  // of a random load: the same seed reads the same places in the same order

  bool write = false;
  uint8_t pattern = 0;          // the byte that is written
  uint64_t flush_interval = 0;  // a flush each so many writes; 0: one, at the end
  bool drain = true;            // before a flush in between all writes that are under way end
  bool flush_at_end = true;
  bool flush_each = false;  // each write is on the disk before it counts as done

  uint64_t stride() const { return step == 0 ? block : step; }
};

}  // namespace bench
