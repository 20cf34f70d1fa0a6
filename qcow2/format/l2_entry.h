// An entry of an L2 table: the location of a guest cluster.
//
// Source: qcow2 specification, "L2 table entry".  A standard entry, big-endian on disk:
//
//      63      62     61..56      55........9     8..1     0
//     COPIED   0      reserved    host offset   reserved  zero
//
// The zero flag exists in version 3 only, and not with extended L2 entries.  A compressed entry,
// with x = 62 - (cluster_bits - 8):
//
//      63    62     61.........x         x-1.........0
//      0      1     sectors - 1          host offset, unaligned
//
// An extended entry is such a word (without a zero flag) followed by a second one:
//
//     63........32                  31.........0
//     subcluster i reads as zeros   subcluster i is allocated
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/byte_order.h"
#include "qcow2/format/geometry.h"
#include "storage/offset.h"

namespace vc::qcow2 {

inline constexpr uint64_t kEntryCopied = uint64_t{1} << 63;
inline constexpr uint64_t kEntryCompressed = uint64_t{1} << 62;
inline constexpr uint64_t kEntryZero = 1;
inline constexpr uint64_t kEntryOffsetMask = 0x00fffffffffffe00;

// The location of a compressed cluster.
struct CompressedDescriptor {
  HostOffset offset;  // unaligned
  uint64_t sectors;   // number of 512-byte sectors with data, at least 1

  // Returns the bytes from `offset` to the end of the last sector; the data may end before.
  constexpr uint64_t readable_bytes() const {
    return sectors * Geometry::kSectorSize - (offset.value() & (Geometry::kSectorSize - 1));
  }

  static constexpr unsigned offset_bits(unsigned cluster_bits) { return 62 - (cluster_bits - 8); }

  static constexpr CompressedDescriptor decode(uint64_t entry, unsigned cluster_bits) {
    const unsigned bits = offset_bits(cluster_bits);
    const uint64_t offset = entry & ((uint64_t{1} << bits) - 1);
    const uint64_t sectors = (entry >> bits) & ((uint64_t{1} << (cluster_bits - 8)) - 1);
    return {HostOffset(offset), sectors + 1};
  }

  // Returns the descriptor of `length` bytes (at least 1) at `offset`, which must be below 1 <<
  // offset_bits ().
  static constexpr CompressedDescriptor covering(HostOffset offset, uint64_t length) {
    const uint64_t first = offset.value() / Geometry::kSectorSize;
    const uint64_t last = (offset.value() + length - 1) / Geometry::kSectorSize;
    return {offset, last - first + 1};
  }

  constexpr uint64_t encode(unsigned cluster_bits) const {
    return kEntryCompressed | ((sectors - 1) << offset_bits(cluster_bits)) | offset.value();
  }
};

struct L2Entry {
  uint64_t word = 0;
  uint64_t bitmap = 0;  // extended L2 only; else 0

  constexpr bool copied() const { return (word & kEntryCopied) != 0; }
  constexpr bool compressed() const { return (word & kEntryCompressed) != 0; }
  constexpr bool zero_flag() const { return (word & kEntryZero) != 0; }
  constexpr HostOffset host() const { return HostOffset(word & kEntryOffsetMask); }
  constexpr uint32_t allocated_mask() const { return static_cast<uint32_t>(bitmap); }
  constexpr uint32_t zero_mask() const { return static_cast<uint32_t>(bitmap >> 32); }
};

// Returns entry `index` of a table, or of a slice of one, as in the file.
inline L2Entry load_l2_entry(std::span<const std::byte> table, uint64_t index, bool extended) {
  if (!extended) return {load_be64(&table[index * 8]), 0};
  return {load_be64(&table[index * 16]), load_be64(&table[index * 16 + 8])};
}

inline void store_l2_entry(std::span<std::byte> table, uint64_t index, bool extended,
                           L2Entry entry) {
  if (!extended) {
    store_be64(&table[index * 8], entry.word);
    return;
  }
  store_be64(&table[index * 16], entry.word);
  store_be64(&table[index * 16 + 8], entry.bitmap);
}

}  // namespace vc::qcow2
