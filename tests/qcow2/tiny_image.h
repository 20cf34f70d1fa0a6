// A small image in memory, made byte by byte, for contents that no tool writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/byte_order.h"
#include "qcow2/format/header.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "qcow2/read/qcow2_layer.h"
#include "tests/support/memory_storage.h"

namespace vc::test {

// Layout, in clusters: 0 header, 1 refcount table, 2 refcount block (zeros, because readers do not
// use it), 3 L1 table, 4 L2 table of the first L1 entry, 5 … free for data.
class TinyImage {
 public:
  explicit TinyImage(unsigned cluster_bits = 16, uint64_t size = 1 << 20, uint32_t version = 3)
      : cluster_bits_(cluster_bits) {
    bytes.resize(cluster(8));
    put32(0, qcow2::kMagic);
    put32(4, version);
    put32(20, cluster_bits);
    put64(24, size);
    put32(36, 1);           // L1 entries
    put64(40, cluster(3));  // L1 table
    put64(48, cluster(1));  // refcount table
    put32(56, 1);
    if (version == 3) {
      put32(96, 4);
      put32(100, qcow2::Header::kLengthV3);
    }
    put64(cluster(1), cluster(2));
    put64(cluster(3), cluster(4) | (uint64_t{1} << 63));
  }

  uint64_t cluster(uint64_t index) const { return index << cluster_bits_; }
  uint64_t cluster_size() const { return cluster(1); }

  void put8(uint64_t at, uint8_t value) { bytes.at(at) = std::byte{value}; }
  void put16(uint64_t at, uint16_t value) { store_be16(&bytes.at(at), value); }
  void put32(uint64_t at, uint32_t value) { store_be32(&bytes.at(at), value); }
  void put64(uint64_t at, uint64_t value) { store_be64(&bytes.at(at), value); }
  void put_text(uint64_t at, std::string_view text) {
    for (const char c : text) put8(at++, static_cast<uint8_t>(c));
  }
  void fill(uint64_t at, uint64_t length, uint8_t value) {
    for (uint64_t i = 0; i < length; ++i) put8(at + i, value);
  }
  // Writes a header extension at `at`. Returns the offset of the next one.
  uint64_t put_extension(uint64_t at, uint32_t type, std::string_view data) {
    put32(at, type);
    put32(at + 4, static_cast<uint32_t>(data.size()));
    put_text(at + 8, data);
    return at + 8 + (data.size() + 7) / 8 * 8;
  }

  void set_incompatible(uint64_t bits) { put64(72, bits); }
  void set_l2(uint64_t index, uint64_t entry) { put64(cluster(4) + index * 8, entry); }
  void set_extended_l2(uint64_t index, uint64_t entry, uint64_t bitmap) {
    put64(cluster(4) + index * 16, entry);
    put64(cluster(4) + index * 16 + 8, bitmap);
  }

  std::shared_ptr<qcow2::MemoryStorage> storage() const {
    return std::make_shared<qcow2::MemoryStorage>("tiny.qcow2", bytes);
  }

  Result<qcow2::Header> header() const { return qcow2::Header::read(*storage()); }

  Result<std::shared_ptr<qcow2::Image>> image(std::shared_ptr<Storage> data_file = nullptr) const {
    auto file = storage();
    ASSIGN_OR_RETURN(qcow2::Header read, qcow2::Header::read(*file));
    return qcow2::Image::open(file, std::move(read), std::move(data_file),
                              std::make_shared<qcow2::TableCache>(1 << 20));
  }

  Result<qcow2::Disk> disk(std::shared_ptr<Storage> data_file = nullptr) const {
    ASSIGN_OR_RETURN(auto opened, image(std::move(data_file)));
    ASSIGN_OR_RETURN(auto layer, qcow2::open_active_layer(opened));
    return qcow2::Disk({layer});
  }

  std::vector<std::byte> bytes;

 private:
  unsigned cluster_bits_;
};

// Returns [at, at + length) of a disk, or the error of the read.
inline Result<std::vector<std::byte>> read(const qcow2::Disk& disk, uint64_t at, uint64_t length) {
  std::vector<std::byte> bytes(length, std::byte{0xee});
  RETURN_IF_ERROR(disk.read(GuestOffset(at), bytes));
  return bytes;
}

inline bool all_are(std::span<const std::byte> bytes, uint8_t value) {
  for (const std::byte it : bytes)
    if (it != std::byte{value}) return false;
  return true;
}

}  // namespace vc::test
