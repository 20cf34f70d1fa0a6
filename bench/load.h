// A load on a disk.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/result.h"

namespace vc::bench {

struct Load {
  // Ends after this many requests or this time, whichever comes first. At least one is set.
  std::optional<uint64_t> count;
  std::optional<std::chrono::duration<double>> duration;
  unsigned depth = 64;         // requests in flight
  uint64_t block = 4096;       // bytes per request
  uint64_t step = 0;           // bytes between requests, 0: `block`; random: grid size
  uint64_t offset = 0;         // of the first request, bytes; random: start of the grid
  uint64_t span = UINT64_MAX;  // length of the used part of the disk, bytes
  bool random = false;
  uint64_t seed = 1;  // random loads: same seed, same offsets in the same order

  bool write = false;
  uint8_t pattern = 0;          // the byte to write
  uint64_t flush_interval = 0;  // writes between flushes; 0: only one at the end
  bool drain = true;            // wait for all writes in flight before an intermediate flush
  bool flush_at_end = true;
  bool flush_each = false;  // each write reaches stable storage before it counts

  uint64_t stride() const { return step == 0 ? block : step; }
};

}  // namespace vc::bench
