// Reads and writes big-endian integers in byte buffers.  All integers of the QCOW2 format are
// big-endian.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vc {

template <typename T>
constexpr T swap_if_little(T value) {
  if constexpr (std::endian::native == std::endian::big) return value;
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

template <typename T>
inline T load_be(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return swap_if_little(value);
}

template <typename T>
inline void store_be(std::byte* to, T value) {
  value = swap_if_little(value);
  std::memcpy(to, &value, sizeof value);
}

inline uint16_t load_be16(const std::byte* from) {
  return load_be<uint16_t>(from);
}
inline uint32_t load_be32(const std::byte* from) {
  return load_be<uint32_t>(from);
}
inline uint64_t load_be64(const std::byte* from) {
  return load_be<uint64_t>(from);
}
inline void store_be16(std::byte* to, uint16_t value) {
  store_be(to, value);
}
inline void store_be32(std::byte* to, uint32_t value) {
  store_be(to, value);
}
inline void store_be64(std::byte* to, uint64_t value) {
  store_be(to, value);
}

}  // namespace vc
