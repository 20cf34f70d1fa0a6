// A map from clusters of a file to the metadata in them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "qcow2/check/finding.h"

namespace vc::qcow2 {

class MetadataMap {
 public:
  struct Range {
    uint64_t first;  // cluster
    uint64_t end;    // past the last one
    Finding::Place place;
  };

  void add(uint64_t first, uint64_t count, Finding::Place place) {
    ranges_.push_back({first, first + count, place});
  }

  // Must be called after all ranges are added.  Calls `overlap` with each two ranges that share
  // clusters.
  template <typename Overlap>
  void finish(const Overlap& overlap) {
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) { return a.first < b.first; });
    std::vector<Range> apart;
    for (const Range& range : ranges_) {
      if (!apart.empty() && range.first < apart.back().end) {
        overlap(apart.back(), range);
        apart.back().end = std::max(apart.back().end, range.end);
      } else if (!apart.empty() && range.first == apart.back().end &&
                 range.place == apart.back().place) {
        apart.back().end = range.end;
      } else {
        apart.push_back(range);
      }
    }
    ranges_ = std::move(apart);
  }

  // Returns a range that intersects the `count` clusters from `first`; nullptr if there is none.
  const Range* find(uint64_t first, uint64_t count) const {
    const auto next = std::upper_bound(ranges_.begin(), ranges_.end(), first,
                                       [](uint64_t at, const Range& it) { return at < it.end; });
    return next != ranges_.end() && next->first < first + count ? &*next : nullptr;
  }

 private:
  std::vector<Range> ranges_;  // after finish (): sorted and disjoint
};

}  // namespace vc::qcow2
