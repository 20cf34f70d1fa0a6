#include "base/zero_bytes.h"

#include <cstdint>
#include <cstring>

namespace vc {

namespace {

// Bytes checked per branch: long enough to use whole vector registers, short enough to stop soon at
// data.
constexpr size_t kBlock = 256;

inline uint64_t load(const std::byte* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

inline bool block_is_zero(const std::byte* from) {
  uint64_t bits = 0;
  for (size_t i = 0; i < kBlock; i += sizeof bits) bits |= load(from + i);
  return bits == 0;
}

}  // namespace

bool is_zero(std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  // Most buffers with data have a nonzero byte at the start.
  if (left >= sizeof(uint64_t) && load(at) != 0) return false;
  for (; left >= kBlock; at += kBlock, left -= kBlock)
    if (!block_is_zero(at)) return false;
  for (; left >= sizeof(uint64_t); at += sizeof(uint64_t), left -= sizeof(uint64_t))
    if (load(at) != 0) return false;
  for (; left > 0; ++at, --left)
    if (*at != std::byte{0}) return false;
  return true;
}

}  // namespace vc
