// A set of disjoint byte ranges that do not touch each other. Tracks which range has not grown for
// the longest time. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

namespace vc::nbdkit {

struct Range {
  uint64_t begin;  // bytes
  uint64_t end;    // bytes, exclusive

  uint64_t length() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool overlaps(const Range& other) const { return begin < other.end && other.begin < end; }
};

class RangeSet {
 public:
  // Adds the range and merges it with ranges that it overlaps or touches. Ignores an empty range.
  void add(Range range);
  // Removes the range. Returns the number of bytes that were in the set. If a range must be split
  // and memory is exhausted, the second half is removed, too.
  uint64_t remove(Range range) noexcept;

  // Returns the range that ends, or begins, at this offset. nullopt if there is none.
  std::optional<Range> ending_at(uint64_t offset) const;
  std::optional<Range> beginning_at(uint64_t offset) const;
  // Returns the first range that begins at or after this offset.
  std::optional<Range> first_from(uint64_t offset) const;
  // Returns the range that add() has not changed for the longest time. The set must not be empty.
  Range oldest() const;

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

  void insert(Range range);
  Ranges::iterator take(Ranges::iterator it) noexcept;

  Ranges ranges_;  // by begin
  // Invariant: one entry per range, with its begin; the smallest key is the oldest range.
  std::map<uint64_t, uint64_t> by_age_;
  uint64_t age_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace vc::nbdkit
