// The ranges of a disk that have changed, for its dirty bitmaps.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// Memory: one bit for each unit that changed or is near to one that changed, at most 32 MiB for any
// disk.  The unit of a larger disk is coarser, so that the ranges are a superset.
//
// Thread-safe.
class ChangedRanges {
 public:
  // Of a disk of `disk_size` bytes, in units of 1 << `unit_bits` bytes or coarser.
  ChangedRanges(uint64_t disk_size, unsigned unit_bits);

  // Adds a range.  Ignores what is past the end of the disk.
  void add(GuestOffset at, uint64_t length);

  bool empty() const;
  uint64_t unit() const { return uint64_t{1} << unit_bits_; }

  // Sets the bits of changed ranges in `bits`, a part of a bitmap in the format of the file: its
  // first bit, the least significant of the first byte, is that of `first_bit` <<
  // `granularity_bits`.
  void merge_into(std::span<std::byte> bits, uint64_t first_bit, unsigned granularity_bits) const;

 private:
  static constexpr uint64_t kPageBytes = 4096;
  static constexpr uint64_t kPageBits = kPageBytes * 8;
  using Page = std::array<std::byte, kPageBytes>;

  uint64_t size_;  // of the disk, bytes
  unsigned unit_bits_;
  mutable Mutex mutex_;
  std::vector<std::unique_ptr<Page>> pages_ GUARDED_BY(mutex_);
};

}  // namespace vc::qcow2
