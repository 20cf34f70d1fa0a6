// What the guest of a source does not use: it need not be read, and is zeros in the copy.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "guest/reading/ranges.h"
#include "qcow2/read/extent.h"

namespace copy {

class UnusedSpace {
 public:
  // Parts that are shorter are read like data: extents should not become too many.  Bytes.
  static constexpr uint64_t kShortest = 4 << 10;

  // Nothing is unused.
  UnusedSpace() = default;
  // `ranges` are offsets of the guest's disk.  Parts of them begin and end at multiples of
  // `alignment`, a power of two.
  UnusedSpace(std::shared_ptr<const guest::Ranges> ranges, uint64_t alignment);

  bool empty() const { return !ranges_ || ranges_->empty(); }

  // Of the extents from `first` on, makes the parts kZero that are unused.  A compressed cluster
  // becomes zero as a whole or not at all, since its stream has to be decoded as a whole; what
  // reads as zeros stays as it is.  What would be more than `max_extents` in all is dropped:
  // `extents` covers a first part then, of at least one extent.
  void split(std::vector<qcow2::Extent>& extents, size_t first, size_t max_extents) const;

 private:
  // The first range that ends after `at`.
  std::vector<guest::Range>::const_iterator range_after(uint64_t at) const;
  // The part of `range` in the extent [begin, end) that counts; empty if it is too short.
  guest::Range part_of(const guest::Range& range, uint64_t begin, uint64_t end) const;

  std::shared_ptr<const guest::Ranges> ranges_;
  uint64_t alignment_ = 1;
};

}  // namespace copy
