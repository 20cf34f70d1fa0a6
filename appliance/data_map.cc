#include "appliance/data_map.h"

#include <algorithm>

namespace vc::appliance {

void DataMap::add(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  if (!stretches_.empty() && begin <= stretches_.back().end)
    stretches_.back().end = std::max(stretches_.back().end, end);
  else
    stretches_.push_back({begin, end});
}

uint64_t DataMap::bytes() const {
  uint64_t sum = 0;
  for (const ByteRange& it : stretches_) sum += it.length();
  return sum;
}

DataMap DataMap::widened(uint64_t granularity) const {
  const uint64_t mask = granularity - 1;
  DataMap map;
  for (const ByteRange& it : stretches_) map.add(it.begin & ~mask, (it.end + mask) & ~mask);
  return map;
}

DataMap DataMap::without(const DataMap& other) const {
  DataMap map;
  auto hole = other.stretches_.begin();
  const auto end = other.stretches_.end();
  for (const ByteRange& it : stretches_) {
    uint64_t at = it.begin;
    while (hole != end && hole->end <= at) ++hole;
    for (auto cut = hole; cut != end && cut->begin < it.end; ++cut) {
      map.add(at, cut->begin);
      at = std::max(at, cut->end);
    }
    map.add(at, std::max(at, it.end));
  }
  return map;
}

}  // namespace vc::appliance
