// Space that the guest of a source does not use. A copy does not read it and has zeros there.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "guest/reading/ranges.h"
#include "qcow2/read/extent.h"

namespace vc::copy {

class UnusedSpace {
 public:
  // Shorter parts are read like data, to limit the number of extents. Bytes.
  static constexpr uint64_t kShortest = 4 << 10;

  // Describes a disk without unused space.
  UnusedSpace() = default;
  // `ranges`: offsets of the guest's disk. Parts of them begin and end at multiples of `alignment`,
  // a power of two.
  UnusedSpace(std::shared_ptr<const guest::Ranges> ranges, uint64_t alignment);

  bool empty() const { return !ranges_ || ranges_->empty(); }

  // Makes the unused parts of the extents from `first` on kZero. A compressed cluster becomes zero
  // as a whole or not at all, since its stream can only be decoded as a whole. Extents that read as
  // zeros stay unchanged. Drops extents after `max_extents`; `extents` then covers the first part,
  // at least one extent.
  void split(std::vector<qcow2::Extent>& extents, size_t first, size_t max_extents) const;

 private:
  // Returns the first range that ends after `at`.
  std::vector<guest::Range>::const_iterator range_after(uint64_t at) const;
  // Returns the usable part of `range` in the extent [begin, end). Empty if it is too short.
  guest::Range part_of(const guest::Range& range, uint64_t begin, uint64_t end) const;

  std::shared_ptr<const guest::Ranges> ranges_;
  uint64_t alignment_ = 1;
};

}  // namespace vc::copy
