#include "qcow2/bitmaps/bitmap_bits.h"

#include <algorithm>

#include "base/rounding.h"

namespace vc::qcow2 {

namespace {

bool bit_at(std::span<const std::byte> bits, uint64_t index) {
  return ((std::to_integer<unsigned>(bits[index / 8]) >> (index % 8)) & 1) != 0;
}

}  // namespace

uint64_t find_bit(std::span<const std::byte> bits, uint64_t at, uint64_t end, bool value) {
  const std::byte other{static_cast<unsigned char>(value ? 0 : 0xff)};
  while (at < end) {
    if (at % 8 == 0 && at + 8 <= end && bits[at / 8] == other)
      at += 8;
    else if (bit_at(bits, at) == value)
      return at;
    else
      ++at;
  }
  return end;
}

void set_bits(std::span<std::byte> bits, uint64_t first, uint64_t count) {
  const uint64_t end = first + count;
  while (first < end) {
    if (first % 8 == 0 && end - first >= 8) {
      const uint64_t bytes = (end - first) / 8;
      std::fill_n(bits.begin() + static_cast<ptrdiff_t>(first / 8), bytes, std::byte{0xff});
      first += bytes * 8;
    } else {
      bits[first / 8] |= std::byte{static_cast<unsigned char>(1u << (first % 8))};
      ++first;
    }
  }
}

void clear_bits_from(std::span<std::byte> bits, uint64_t first) {
  if (first >= bits.size() * 8) return;
  if (first % 8 != 0)
    bits[first / 8] &= std::byte{static_cast<unsigned char>((1u << (first % 8)) - 1)};
  const auto rest = bits.subspan(divide_up(first, 8));
  std::fill(rest.begin(), rest.end(), std::byte{0});
}

bool are_set(std::span<const std::byte> bits, uint64_t count) {
  return find_bit(bits, 0, count, false) == count;
}

}  // namespace vc::qcow2
