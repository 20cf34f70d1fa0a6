// The bits of a persistent bitmap, as in the file: bit 0 is the least significant one of byte 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vc::qcow2 {

// Sets `count` bits from `first`.
void set_bits(std::span<std::byte> bits, uint64_t first, uint64_t count);
// Clears the bits from `first` to the end.
void clear_bits_from(std::span<std::byte> bits, uint64_t first);
// Returns whether the first `count` bits are set.
bool are_set(std::span<const std::byte> bits, uint64_t count);
// Returns the first bit from `at` on that is `value`; `end` if there is none.
uint64_t find_bit(std::span<const std::byte> bits, uint64_t at, uint64_t end, bool value);

}  // namespace vc::qcow2
