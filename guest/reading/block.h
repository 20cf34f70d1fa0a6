// Bytes of a volume, and access to numbers in them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vc::guest {

// A part of a block. A number past its end reads as 0: no reader may rely on that, but no reader
// can access other memory.
class Fields {
 public:
  Fields() = default;
  explicit Fields(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }

  uint8_t u8(size_t at) const { return number<uint8_t>(at); }
  uint16_t le16(size_t at) const { return number<uint16_t>(at); }
  uint32_t le32(size_t at) const { return number<uint32_t>(at); }
  uint64_t le64(size_t at) const { return number<uint64_t>(at); }
  uint16_t be16(size_t at) const { return __builtin_bswap16(le16(at)); }
  uint32_t be32(size_t at) const { return __builtin_bswap32(le32(at)); }
  uint64_t be64(size_t at) const { return __builtin_bswap64(le64(at)); }

  // Returns [at, at + length), truncated at the end of the block.
  Fields part(size_t at, size_t length = SIZE_MAX) const {
    if (at >= size()) return {};
    return Fields(bytes_.subspan(at, std::min(length, size() - at)));
  }
  std::string_view text(size_t at, size_t length) const {
    const Fields it = part(at, length);
    return {reinterpret_cast<const char*>(it.bytes_.data()), it.size()};
  }
  bool has(size_t at, std::string_view expected) const {
    return text(at, expected.size()) == expected;
  }
  bool all(uint8_t value) const {
    for (const std::byte byte : bytes_)
      if (byte != std::byte{value}) return false;
    return true;
  }

 private:
  template <typename T>
  T number(size_t at) const {
    if (size() < sizeof(T) || at > size() - sizeof(T)) return 0;
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    if constexpr (std::endian::native == std::endian::big && sizeof(T) > 1) {
      auto* bytes = reinterpret_cast<unsigned char*>(&value);
      std::reverse(bytes, bytes + sizeof value);
    }
    return value;
  }

  std::span<const std::byte> bytes_;
};

// Same, and owns the bytes.
class Block {
 public:
  explicit Block(size_t size) : bytes_(size) {}
  explicit Block(Fields fields) : bytes_(fields.bytes().begin(), fields.bytes().end()) {}

  std::span<std::byte> bytes() { return bytes_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  Fields fields() const { return Fields(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace vc::guest
