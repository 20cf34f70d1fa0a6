// A list of ranges: sorted, disjoint, and not touching each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace vc::guest {

struct Range {
  uint64_t begin;  // bytes, or another unit of the owner
  uint64_t end;    // exclusive; greater than `begin`

  uint64_t length() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Thrown by a builder of ranges, and caught by inspect(). A filesystem with so many pieces is kept
// whole.
struct TooManyRanges {};

class Ranges {
 public:
  // Collects ranges in any order. They may overlap. Ignores empty ranges.
  class Builder {
   public:
    // Limits the memory to 32 MiB, and to a few times that while the ranges are sorted. Only
    // hostile filesystems have more ranges.
    static constexpr size_t kMost = 2 << 20;

    // Throws TooManyRanges if there are more than kMost.
    void add(uint64_t begin, uint64_t end);
    // Returns the ranges, and leaves the builder empty.
    Ranges take();
    size_t count() const { return ranges_.size(); }

   private:
    std::vector<Range> ranges_;
  };

  const std::vector<Range>& all() const& { return ranges_; }
  std::vector<Range> all() && { return std::move(ranges_); }
  bool empty() const { return ranges_.empty(); }
  // Returns the total length of all ranges.
  uint64_t total() const;

  // Returns true if any part of [begin, end) is in a range.
  bool meets(uint64_t begin, uint64_t end) const;
  // Return the difference to `other`, and the intersection with it.
  Ranges without(const Ranges& other) const;
  Ranges within(const Ranges& other) const;
  // Returns the union with `other`.
  Ranges with(const Ranges& other) const;
  // Multiplies each offset by `factor`, then adds `offset`. The result must not overflow.
  Ranges scaled(uint64_t factor, uint64_t offset) const;

  friend bool operator==(const Ranges&, const Ranges&) = default;

 private:
  std::vector<Range> ranges_;
};

// Returns a list with this range; an empty list if the range is empty.
Ranges one_range(uint64_t begin, uint64_t end);

}  // namespace vc::guest
