#include "guest/reading/checksums.h"

#include <isa-l/crc.h>
#include <zlib.h>

#include <algorithm>
#include <array>

namespace vc::guest {

namespace {

// Most bytes of one call: the length is an int.
constexpr size_t kMostAtOnce = 1 << 30;
constexpr uint32_t kLvmSeed = 0xF597A6CF;

const Bytef* zlib_bytes(std::span<const std::byte> bytes) {
  return reinterpret_cast<const Bytef*>(bytes.data());
}

}  // namespace

uint32_t crc32c(uint32_t seed, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t length = std::min(bytes.size(), kMostAtOnce);
    // ISA-L takes a non-const pointer, but only reads.
    auto* const from =
        const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
    seed = crc32_iscsi(from, static_cast<int>(length), seed);
    bytes = bytes.subspan(length);
  }
  return seed;
}

uint32_t crc32c_without(std::span<const std::byte> bytes, size_t field) {
  constexpr std::array<std::byte, 4> kZeros{};
  uint32_t crc = crc32c(~uint32_t{0}, bytes.first(field));
  crc = crc32c(crc, kZeros);
  return ~crc32c(crc, bytes.subspan(field + kZeros.size()));
}

uint16_t crc16(uint16_t seed, std::span<const std::byte> bytes) {
  uint32_t crc = seed;
  for (const std::byte byte : bytes) {
    crc ^= std::to_integer<uint32_t>(byte);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xA001u : 0u);
  }
  return static_cast<uint16_t>(crc);
}

uint32_t crc32(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(::crc32_z(0, zlib_bytes(bytes), bytes.size()));
}

uint32_t crc32_lvm(std::span<const std::byte> bytes) {
  // zlib inverts the checksum at both ends.
  return ~static_cast<uint32_t>(::crc32_z(~kLvmSeed & 0xFFFFFFFF, zlib_bytes(bytes), bytes.size()));
}

}  // namespace vc::guest
