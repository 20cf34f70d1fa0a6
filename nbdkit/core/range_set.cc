#include "nbdkit/core/range_set.h"

#include <algorithm>
#include <iterator>
#include <new>

namespace vc::nbdkit {

void RangeSet::insert(ByteRange range) {
  const uint64_t age = age_++;
  const auto aged = by_age_.emplace_hint(by_age_.end(), age, range.begin);
  try {
    ranges_.emplace(range.begin, Rest{range.end, age});
  } catch (...) {
    by_age_.erase(aged);
    throw;
  }
  bytes_ += range.length();
}

RangeSet::Ranges::iterator RangeSet::take(Ranges::iterator it) noexcept {
  bytes_ -= it->second.end - it->first;
  by_age_.erase(it->second.age);
  return ranges_.erase(it);
}

void RangeSet::add(ByteRange range) {
  if (range.empty()) return;
  auto it = ranges_.upper_bound(range.begin);
  if (it != ranges_.begin() && std::prev(it)->second.end >= range.begin) --it;
  while (it != ranges_.end() && it->first <= range.end) {
    range.begin = std::min(range.begin, it->first);
    range.end = std::max(range.end, it->second.end);
    it = take(it);
  }
  insert(range);
}

uint64_t RangeSet::remove(ByteRange range) noexcept {
  if (range.empty()) return 0;
  const uint64_t before = bytes_;
  auto it = ranges_.upper_bound(range.begin);
  if (it != ranges_.begin() && std::prev(it)->second.end > range.begin) --it;
  uint64_t lost = 0;
  while (it != ranges_.end() && it->first < range.end) {
    const ByteRange old{it->first, it->second.end};
    if (old.begin < range.begin) {
      bytes_ -= old.end - range.begin;
      it->second.end = range.begin;
      ++it;
    } else {
      it = take(it);
    }
    if (old.end <= range.end) continue;
    try {
      insert({range.end, old.end});
    } catch (const std::bad_alloc&) {
      lost = old.end - range.end;
    }
    break;
  }
  return before - bytes_ - lost;
}

std::optional<ByteRange> RangeSet::ending_at(uint64_t offset) const {
  const auto it = ranges_.lower_bound(offset);
  if (it == ranges_.begin() || std::prev(it)->second.end != offset) return std::nullopt;
  return ByteRange{std::prev(it)->first, offset};
}

std::optional<ByteRange> RangeSet::beginning_at(uint64_t offset) const {
  const auto it = ranges_.find(offset);
  if (it == ranges_.end()) return std::nullopt;
  return ByteRange{offset, it->second.end};
}

std::optional<ByteRange> RangeSet::first_from(uint64_t offset) const {
  const auto it = ranges_.lower_bound(offset);
  if (it == ranges_.end()) return std::nullopt;
  return ByteRange{it->first, it->second.end};
}

ByteRange RangeSet::oldest() const {
  const uint64_t begin = by_age_.begin()->second;
  return {begin, ranges_.at(begin).end};
}

}  // namespace vc::nbdkit
