#include "guest/reading/ranges.h"

#include <algorithm>
#include <utility>

namespace vc::guest {

void Ranges::Builder::add(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  if (!ranges_.empty() && ranges_.back().end == begin)
    ranges_.back().end = end;
  else if (ranges_.size() < kMost)
    ranges_.push_back({begin, end});
  else
    throw TooManyRanges();
}

Ranges Ranges::Builder::take() {
  const auto earlier = [](const Range& a, const Range& b) { return a.begin < b.begin; };
  if (!std::is_sorted(ranges_.begin(), ranges_.end(), earlier))
    std::sort(ranges_.begin(), ranges_.end(), earlier);
  Ranges result;
  for (const Range& range : ranges_) {
    if (!result.ranges_.empty() && range.begin <= result.ranges_.back().end)
      result.ranges_.back().end = std::max(result.ranges_.back().end, range.end);
    else
      result.ranges_.push_back(range);
  }
  ranges_.clear();
  return result;
}

uint64_t Ranges::total() const {
  uint64_t sum = 0;
  for (const Range& range : ranges_) sum += range.length();
  return sum;
}

bool Ranges::meets(uint64_t begin, uint64_t end) const {
  const auto it = std::upper_bound(ranges_.begin(), ranges_.end(), begin,
                                   [](uint64_t at, const Range& range) { return at < range.end; });
  return begin < end && it != ranges_.end() && it->begin < end;
}

Ranges Ranges::without(const Ranges& other) const {
  Builder builder;
  auto hole = other.ranges_.begin();
  for (const Range& range : ranges_) {
    while (hole != other.ranges_.end() && hole->end <= range.begin) ++hole;
    uint64_t at = range.begin;
    for (auto it = hole; it != other.ranges_.end() && it->begin < range.end; ++it) {
      builder.add(at, it->begin);
      at = std::max(at, it->end);
    }
    builder.add(at, range.end);
  }
  return builder.take();
}

Ranges Ranges::within(const Ranges& other) const {
  Builder builder;
  auto mine = ranges_.begin();
  auto theirs = other.ranges_.begin();
  while (mine != ranges_.end() && theirs != other.ranges_.end()) {
    builder.add(std::max(mine->begin, theirs->begin), std::min(mine->end, theirs->end));
    if (mine->end < theirs->end)
      ++mine;
    else
      ++theirs;
  }
  return builder.take();
}

Ranges Ranges::with(const Ranges& other) const {
  Builder builder;
  for (const Ranges* const list : {this, &other})
    for (const Range& range : list->ranges_) builder.add(range.begin, range.end);
  return builder.take();
}

Ranges Ranges::scaled(uint64_t factor, uint64_t offset) const {
  Builder builder;
  for (const Range& range : ranges_)
    builder.add(range.begin * factor + offset, range.end * factor + offset);
  return builder.take();
}

Ranges one_range(uint64_t begin, uint64_t end) {
  Ranges::Builder builder;
  builder.add(begin, end);
  return builder.take();
}

}  // namespace vc::guest
