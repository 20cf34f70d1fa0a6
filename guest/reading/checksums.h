// Checksums of filesystems and partition tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vc::guest {

// Returns true if the stored checksum equals the computed one. In a fuzzer, always returns true, so
// that the fuzzer gets past checksums.
inline bool is_right_checksum([[maybe_unused]] uint64_t stored,
                              [[maybe_unused]] uint64_t computed) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
  return true;
#else
  return stored == computed;
#endif
}

// CRC-32C (Castagnoli), started with `seed`, without inversion at either end.
uint32_t crc32c(uint32_t seed, std::span<const std::byte> bytes);
// CRC-32C as iSCSI, XFS and btrfs store it: started with ~0, and inverted at the end.
inline uint32_t crc32c(std::span<const std::byte> bytes) {
  return ~crc32c(~uint32_t{0}, bytes);
}
// Same, with the four bytes at `field` taken as zeros.
uint32_t crc32c_without(std::span<const std::byte> bytes, size_t field);
// CRC-16 with the polynomial 0xA001, for ext4's uninit_bg.
uint16_t crc16(uint16_t seed, std::span<const std::byte> bytes);
// CRC-32 of zlib, for GPT.
uint32_t crc32(std::span<const std::byte> bytes);
// CRC-32 of LVM2: zlib's polynomial, started with 0xF597A6CF, without inversion.
uint32_t crc32_lvm(std::span<const std::byte> bytes);

}  // namespace vc::guest
