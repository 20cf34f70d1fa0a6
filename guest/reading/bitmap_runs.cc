#include "guest/reading/bitmap_runs.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/rounding.h"

namespace vc::guest {

namespace {

uint64_t word_at(std::span<const std::byte> bitmap, uint64_t bit) {
  const size_t byte = bit / 8;
  uint64_t word = 0;
  std::memcpy(&word, bitmap.data() + byte, std::min<size_t>(sizeof word, bitmap.size() - byte));
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return word;
}

// Returns the first bit from `at` on that equals `value`; `count` if there is none.
uint64_t find(std::span<const std::byte> bitmap, uint64_t at, uint64_t count, bool value) {
  while (at < count) {
    const uint64_t start = round_down(at, 64);
    const uint64_t word = word_at(bitmap, start);
    const uint64_t hits = (value ? word : ~word) & (~uint64_t{0} << (at - start));
    if (hits != 0) return std::min<uint64_t>(start + std::countr_zero(hits), count);
    at = start + 64;
  }
  return count;
}

}  // namespace

uint64_t add_clear_runs(std::span<const std::byte> bitmap, uint64_t count, uint64_t base,
                        Ranges::Builder& out) {
  uint64_t clear = 0;
  for (uint64_t at = find(bitmap, 0, count, false); at < count;) {
    const uint64_t end = find(bitmap, at, count, true);
    out.add(base + at, base + end);
    clear += end - at;
    at = find(bitmap, end, count, false);
  }
  return clear;
}

}  // namespace vc::guest
