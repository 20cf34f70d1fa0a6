// Digests of a disk's content, to compare it with another disk later.
//
// The disk is divided into pieces (one cluster, at most 64 KiB), and pieces form the regions of a
// table. The digest of a region is the sum of the digests of its pieces, each mixed with the offset
// of its piece. A piece of zeros adds nothing. So the order of additions does not matter, nor
// whether zeros were read, detected, or known without reading: what is never added counts as zeros.
//
// The table has at most 2^18 regions of 16 bytes. Regions are 1 MiB on disks up to 256 GiB, and 64
// MiB on a disk of 16 TiB. The digests are XXH3's 128-bit hashes: they detect accidents, not
// forgery.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "copy/sink/clone_record.h"
#include "storage/offset.h"

namespace vc::copy {

// Thread-safe and lock-free.
class Digests {
 public:
  static constexpr uint64_t kUnknown = UINT64_MAX;
  enum class Zeros {
    kImplied,  // what is not added counts as zeros
    kTold,     // what is not added counts as different
  };

  // `size`: bytes of the disk, or kUnknown. `granule`: a power of two of at least 512, for example
  // the cluster size. All additions must begin and end at multiples of it, or end at the end of the
  // disk.
  Digests(uint64_t size, uint64_t granule, Zeros zeros = Zeros::kImplied);

  // The same with few regions: little memory, and coarse ranges in messages.
  static Digests coarse(uint64_t size, uint64_t granule, Zeros zeros = Zeros::kImplied);

  // Returns empty digests with the same layout, for a disk to compare with this one.
  Digests emptied() const { return {size_, piece_size_, region_size_, clone_group_, zeros_}; }

  // Sets the size of a disk whose size was unknown. What was added past the end must be zeros. Must
  // not run concurrently with add().
  void end_at(uint64_t size) { size_ = size; }

  // Adds the bytes at `at`. Each byte must be added once. Ignores bytes past the end of the disk.
  void add(GuestOffset at, std::span<const std::byte> bytes);
  // Same for bytes that are known to be zeros.
  void add_zeros(GuestOffset at, uint64_t length);

  // Clones have no digests of their bytes, which were not read.

  // The length of the groups of clusters that are cloned or copied as a whole, bytes.
  uint64_t clone_group() const { return clone_group_; }
  // Records the clone of (data in) the group at `at`, a multiple of clone_group(). To be added
  // once, like bytes; it is different from all bytes.
  void add_clone(GuestOffset at);
  // Returns true if the group that contains `at` was added.
  bool has_clone(GuestOffset at) const { return clones_->has(at.value() / clone_group_); }
  bool has_clones() const { return !clones_->empty(); }

  uint64_t size() const { return size_; }
  uint64_t piece_size() const { return piece_size_; }
  uint64_t region_size() const { return region_size_; }

  // A byte range of the disk.
  struct Range {
    GuestOffset begin;
    GuestOffset end;
    friend bool operator==(const Range&, const Range&) = default;
  };
  // Returns the ranges that differ from `other`: whole regions, adjacent ones merged, in order.
  // `other` must be of a disk of the same size with the same pieces. Must not run concurrently with
  // add().
  std::vector<Range> differences(const Digests& other) const;

 private:
  // Two sums without carry between them.
  struct Sum {
    uint64_t low = 0;
    uint64_t high = 0;
  };
  struct Region {
    std::atomic<uint64_t> low{0};
    std::atomic<uint64_t> high{0};
  };

  Digests(uint64_t size, uint64_t piece_size, uint64_t region_size, uint64_t clone_group,
          Zeros zeros);
  // Calls sum_of(begin, length) for each piece of [at, at + length) up to the end of the disk, and
  // adds the sums.
  template <typename SumOf>
  void add_pieces(GuestOffset at, uint64_t length, SumOf sum_of);

  uint64_t size_;
  const uint64_t piece_size_;
  const uint64_t region_size_;
  const uint64_t clone_group_;
  const Zeros zeros_;
  std::vector<Region> regions_;
  std::unique_ptr<CloneRecord> clones_ = std::make_unique<CloneRecord>();
};

}  // namespace vc::copy
