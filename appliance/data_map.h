// Maps which ranges of a disk hold data.
#pragma once

#include <cstdint>
#include <vector>

#include "base/byte_range.h"

namespace vc::appliance {

// Ranges of a disk: disjoint, in order, not touching each other.
class DataMap {
 public:
  // Adds a range. It must not begin before the end of the previous range.
  void add(uint64_t begin, uint64_t end);

  const std::vector<ByteRange>& stretches() const { return stretches_; }
  uint64_t bytes() const;

  // Returns the map with each range extended to multiples of `granularity` (bytes, a power of two).
  DataMap widened(uint64_t granularity) const;
  // Returns the ranges of this map that are not in `other`.
  DataMap without(const DataMap& other) const;

 private:
  std::vector<ByteRange> stretches_;
};

}  // namespace vc::appliance
