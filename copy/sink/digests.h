// What a disk holds, in short: to find out later whether another one holds the same.
//
// The disk is cut into pieces (of a cluster, at most 64 KiB), and pieces into the regions of a
// table.  The digest of a region is the sum of the digests of its pieces, each mixed with the
// offset of its piece; a piece of zeros counts nothing.  So it does not matter who adds what in
// which order, nor whether zeros were read, found, or known without reading: what is never added is
// zeros.
//
// The table has at most 2^18 regions of 16 bytes: regions are 1 MiB on disks up to 256 GiB, and
// 64 MiB on one of 16 TiB.
//
// The digests are XXH3's of 128 bits: made against accidents, not against forgery.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "storage/offset.h"

namespace copy {

// Thread-safe, and nobody waits.
class Digests {
 public:
  static constexpr uint64_t kUnknown = UINT64_MAX;
  enum class Zeros {
    kImplied,  // what is not added is zeros
    kTold,     // what is not added is something else
  };

  // `size` of the disk in bytes, or kUnknown.  `granule`: all that is added begins and ends at
  // multiples of it, a power of two from 512 on, or ends with the disk; that may be the cluster
  // size.
  Digests(uint64_t size, uint64_t granule, Zeros zeros = Zeros::kImplied);

  // For a disk to compare with this one, with nothing added yet.
  Digests emptied() const { return Digests(size_, piece_size_, region_size_, zeros_); }

  // The disk, whose size was unknown, ends here; what was added behind it was zeros.  While nobody
  // adds.
  void end_at(uint64_t size) { size_ = size; }

  // Adds the bytes at `at`, each once.  What lies behind the end of the disk is left out.
  void add(qcow2::GuestOffset at, std::span<const std::byte> bytes);
  // The same for bytes that are zeros, without looking at them.
  void add_zeros(qcow2::GuestOffset at, uint64_t length);

  uint64_t size() const { return size_; }
  uint64_t piece_size() const { return piece_size_; }
  uint64_t region_size() const { return region_size_; }

  // A stretch of the disk, in bytes.
  struct Range {
    qcow2::GuestOffset begin;
    qcow2::GuestOffset end;
    friend bool operator==(const Range&, const Range&) = default;
  };
  // Where `other`, of a disk of the same size and with the same pieces, is different: whole
  // regions, neighbours joined, in order.  While nobody adds.
  std::vector<Range> differences(const Digests& other) const;

 private:
  // Two sums that do not carry.
  struct Sum {
    uint64_t low = 0;
    uint64_t high = 0;
  };
  struct Region {
    std::atomic<uint64_t> low{0};
    std::atomic<uint64_t> high{0};
  };

  Digests(uint64_t size, uint64_t piece_size, uint64_t region_size, Zeros zeros);
  // Calls sum_of (begin, length) for [at, at + length) as far as the disk goes, piece by piece, and
  // adds the sums up.
  template <typename SumOf>
  void add_pieces(qcow2::GuestOffset at, uint64_t length, SumOf sum_of);

  uint64_t size_;
  const uint64_t piece_size_;
  const uint64_t region_size_;
  const Zeros zeros_;
  std::vector<Region> regions_;
};

}  // namespace copy
