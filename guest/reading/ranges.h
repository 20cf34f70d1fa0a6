// Stretches of a disk: sorted, disjoint, none touching the next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace vc::guest {

struct Range {
  uint64_t begin;  // bytes, or whatever the owner counts in
  uint64_t end;    // past the last one; greater than `begin`

  uint64_t length() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Thrown by a builder of ranges, and caught by inspect(): a filesystem in so many pieces is kept
// whole, whoever has made its metadata.
struct TooManyRanges {};

class Ranges {
 public:
  // Collects ranges in any order; they may overlap.  Empty ones are left out.
  class Builder {
   public:
    // More than any filesystem that is not hostile has: 32 MiB of memory, and a few times that
    // while they are put in order.
    static constexpr size_t kMost = 2 << 20;

    // Throws TooManyRanges when there are more than kMost.
    void add(uint64_t begin, uint64_t end);
    // The builder is empty afterwards.
    Ranges take();
    size_t count() const { return ranges_.size(); }

   private:
    std::vector<Range> ranges_;
  };

  const std::vector<Range>& all() const& { return ranges_; }
  std::vector<Range> all() && { return std::move(ranges_); }
  bool empty() const { return ranges_.empty(); }
  // The length of all ranges together.
  uint64_t total() const;

  // Whether any of [begin, end) is in a range.
  bool meets(uint64_t begin, uint64_t end) const;
  // What is in this one, and not in `other`; and what is in both.
  Ranges without(const Ranges& other) const;
  Ranges within(const Ranges& other) const;
  // What is in either.
  Ranges with(const Ranges& other) const;
  // Multiplies each offset by `factor`, then adds `offset`.  The caller knows that it fits.
  Ranges scaled(uint64_t factor, uint64_t offset) const;

  friend bool operator==(const Ranges&, const Ranges&) = default;

 private:
  std::vector<Range> ranges_;
};

// One range, or none if it is empty.
Ranges one_range(uint64_t begin, uint64_t end);

}  // namespace vc::guest
