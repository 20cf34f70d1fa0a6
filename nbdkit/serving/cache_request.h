// NBD_CMD_CACHE: makes the next read of a range fast.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "storage/offset.h"

namespace vc::nbdkit {

// Reads `count` bytes at `at` through `read(GuestOffset, std::span<std::byte>)` and drops them.
// This fills the page cache and the L2 cache; a hint to the kernel alone would not read the tables.
// nbdkit's own emulation is unsuitable: all of its threads read into one buffer.
template <typename Read>
Result<void> cache_range(GuestOffset at, uint64_t count, Read read) {
  constexpr uint64_t kPiece = 256 << 10;
  std::vector<std::byte> dropped(std::min(count, kPiece));
  for (uint64_t done = 0; done < count; done += dropped.size()) {
    const uint64_t length = std::min<uint64_t>(dropped.size(), count - done);
    RETURN_IF_ERROR(read(GuestOffset(at.value() + done), std::span(dropped.data(), length)));
  }
  return {};
}

}  // namespace vc::nbdkit
