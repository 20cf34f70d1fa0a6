// The checksums of filesystems and partition tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vc::guest {

// Whether a stored checksum is the one that was computed.  In a fuzzer every one is, so that it
// gets past them.
inline bool is_right_checksum([[maybe_unused]] uint64_t stored,
                              [[maybe_unused]] uint64_t computed) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
  return true;
#else
  return stored == computed;
#endif
}

// CRC-32C (Castagnoli) without an inversion at either end, going on from `seed`.
uint32_t crc32c(uint32_t seed, std::span<const std::byte> bytes);
// CRC-32C as iSCSI, XFS and btrfs store it: from ~0, inverted.
inline uint32_t crc32c(std::span<const std::byte> bytes) {
  return ~crc32c(~uint32_t{0}, bytes);
}
// CRC-32C of `bytes` with the four bytes at `field` taken as zeros, inverted.
uint32_t crc32c_without(std::span<const std::byte> bytes, size_t field);
// CRC-16 with the polynomial 0xA001, as ext4's uninit_bg has it.
uint16_t crc16(uint16_t seed, std::span<const std::byte> bytes);
// CRC-32 of zlib: GPT's.
uint32_t crc32(std::span<const std::byte> bytes);
// CRC-32 of LVM2: zlib's polynomial from 0xF597A6CF, without an inversion.
uint32_t crc32_lvm(std::span<const std::byte> bytes);

}  // namespace vc::guest
