// A set of disjoint byte ranges that do not touch each other. Tracks which range has not grown for
// the longest time. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

#include "base/byte_range.h"

namespace vc::nbdkit {

class RangeSet {
 public:
  // Adds the range and merges it with ranges that it overlaps or touches. Ignores an empty range.
  void add(ByteRange range);
  // Removes the range. Returns the number of bytes that were in the set. If a range must be split
  // and memory is exhausted, the second half is removed, too.
  uint64_t remove(ByteRange range) noexcept;

  // Returns the range that ends, or begins, at this offset. nullopt if there is none.
  std::optional<ByteRange> ending_at(uint64_t offset) const;
  std::optional<ByteRange> beginning_at(uint64_t offset) const;
  // Returns the first range that begins at or after this offset.
  std::optional<ByteRange> first_from(uint64_t offset) const;
  // Returns the range that add() has not changed for the longest time. The set must not be empty.
  ByteRange oldest() const;

  bool empty() const { return ranges_.empty(); }
  size_t count() const { return ranges_.size(); }
  // Total length of all ranges.
  uint64_t bytes() const { return bytes_; }

 private:
  struct Rest {
    uint64_t end;
    uint64_t age;  // key in by_age_
  };
  using Ranges = std::map<uint64_t, Rest>;

  void insert(ByteRange range);
  Ranges::iterator take(Ranges::iterator it) noexcept;

  Ranges ranges_;  // by begin
  // Invariant: one entry per range, with its begin; the smallest key is the oldest range.
  std::map<uint64_t, uint64_t> by_age_;
  uint64_t age_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace vc::nbdkit
