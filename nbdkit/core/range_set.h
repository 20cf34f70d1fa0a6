// A set of byte ranges: disjoint, and none touches another.
//
// Knows which range has gone longest without growing.  Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

namespace filters {

struct Range {
  uint64_t begin;  // bytes
  uint64_t end;    // bytes, behind the last one

  uint64_t length() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool overlaps(const Range& other) const { return begin < other.end && other.begin < end; }
};

class RangeSet {
 public:
  // Adds the range, as one with those that it overlaps or touches; an empty one does nothing.
  void add(Range range);
  // Takes the range out, and tells how many bytes of it were in.  Where memory for the second half
  // of a range that is cut in two cannot be had, that half goes, too.
  uint64_t remove(Range range) noexcept;

  // The range that ends, or begins, at this offset.
  std::optional<Range> ending_at(uint64_t offset) const;
  std::optional<Range> beginning_at(uint64_t offset) const;
  // The first range that begins at this offset or behind it.
  std::optional<Range> first_from(uint64_t offset) const;
  // The range that add () left alone for the longest time; the set must not be empty.
  Range oldest() const;

  bool empty() const { return ranges_.empty(); }
  size_t count() const { return ranges_.size(); }
  // The length of all ranges together.
  uint64_t bytes() const { return bytes_; }

 private:
  struct Rest {
    uint64_t end;
    uint64_t age;  // a key of by_age_
  };
  using Ranges = std::map<uint64_t, Rest>;

  void insert(Range range);
  Ranges::iterator take(Ranges::iterator it) noexcept;

  Ranges ranges_;  // by their begin
  // Invariant: one entry for each range, with its begin; the least key is the oldest.
  std::map<uint64_t, uint64_t> by_age_;
  uint64_t age_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace filters
