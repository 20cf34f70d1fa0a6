#include "copy/source/unused_space.h"

#include <algorithm>

#include "base/rounding.h"

namespace vc::copy {

using guest::Range;
using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

// Returns the part [begin, end) of an extent. A compressed cluster is returned whole.
Extent data(const Extent& of, uint64_t begin, uint64_t end) {
  if (of.kind == ExtentKind::kCompressed) return of;
  Extent it = of;
  it.guest = GuestOffset(begin);
  it.length = end - begin;
  it.host = of.host + (begin - of.guest.value());
  return it;
}

// Returns the part [begin, end) as zeros, unallocated in the file.
Extent zeros(const Extent& of, uint64_t begin, uint64_t end) {
  Extent it;
  it.guest = GuestOffset(begin);
  it.length = end - begin;
  it.kind = ExtentKind::kZero;
  it.depth = of.depth;
  return it;
}

}  // namespace

UnusedSpace::UnusedSpace(std::shared_ptr<const guest::Ranges> ranges, uint64_t alignment)
    : ranges_(std::move(ranges)), alignment_(alignment) {}

std::vector<Range>::const_iterator UnusedSpace::range_after(uint64_t at) const {
  const auto& all = ranges_->all();
  return std::partition_point(all.begin(), all.end(),
                              [at](const Range& range) { return range.end <= at; });
}

Range UnusedSpace::part_of(const Range& range, uint64_t begin, uint64_t end) const {
  const uint64_t from = std::max(round_up(range.begin, alignment_), begin);
  const uint64_t to = std::min(round_down(range.end, alignment_), end);
  const bool whole = from == begin && to == end;
  return whole || (from < to && to - from >= kShortest) ? Range{from, to} : Range{end, end};
}

void UnusedSpace::split(std::vector<Extent>& extents, size_t first, size_t max_extents) const {
  if (empty()) return;
  std::vector<Extent> out;
  const auto add = [&](const Extent& it) {
    if (out.empty() || !join(out.back(), it)) out.push_back(it);
  };
  for (size_t i = first; i < extents.size() && first + out.size() <= max_extents; ++i) {
    const Extent& extent = extents[i];
    if (extent.reads_as_zero()) {
      add(extent);
      continue;
    }
    const uint64_t begin = extent.guest.value();
    const uint64_t end = extent.end().value();
    uint64_t at = begin;  // everything before is added
    for (auto range = range_after(at); range != ranges_->all().end() && range->begin < end;
         ++range) {
      const Range part = part_of(*range, begin, end);
      const bool whole = part.begin == begin && part.end == end;
      if (part.begin == part.end || (extent.kind == ExtentKind::kCompressed && !whole)) continue;
      if (part.begin > at) add(data(extent, at, part.begin));
      add(zeros(extent, part.begin, part.end));
      at = part.end;
    }
    if (at < end) add(data(extent, at, end));
  }
  if (first + out.size() > max_extents) out.resize(std::max<size_t>(max_extents - first, 1));
  extents.resize(first);
  extents.insert(extents.end(), out.begin(), out.end());
}

}  // namespace vc::copy
