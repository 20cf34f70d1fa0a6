#include "qcow2/read/losses.h"

#include <algorithm>

namespace vc::qcow2 {

const char* to_string(LossReason reason) {
  switch (reason) {
    case LossReason::kUnreadable:
      return "unreadable";
    case LossReason::kPastEnd:
      return "past-end";
    case LossReason::kStream:
      return "stream-damaged";
    case LossReason::kTable:
      return "table-unreadable";
    case LossReason::kEntry:
      return "entry-invalid";
    case LossReason::kReferences:
      return "references-lost";
    case LossReason::kOverlap:
      return "overlap";
  }
  return "";
}

const char* describe(LossReason reason) {
  switch (reason) {
    case LossReason::kUnreadable:
      return "cannot be read";
    case LossReason::kPastEnd:
      return "lies past the end of the file";
    case LossReason::kStream:
      return "compressed data that cannot be decoded";
    case LossReason::kTable:
      return "the table that maps it cannot be read";
    case LossReason::kEntry:
      return "the table entry that maps it is invalid";
    case LossReason::kReferences:
      return "the table that maps it was overwritten with zeros";
    case LossReason::kOverlap:
      return "metadata uses the same clusters";
  }
  return "";
}

void Losses::add(GuestOffset at, uint64_t length, LossReason reason) {
  const MutexLock lock(mutex_);
  const uint64_t end = at.value() + length;
  for (uint64_t begin = at.value(); begin < end;) {
    auto next = ranges_.upper_bound(begin);
    if (next != ranges_.begin()) {
      Loss& before = std::prev(next)->second;
      if (before.end().value() > begin) {
        begin = before.end().value();
        continue;
      }
      const uint64_t stop = next == ranges_.end() ? end : std::min(end, next->first);
      if (begin - before.end().value() <= gap_ && (before.reason == reason || gap_ > 0)) {
        before.length = stop - before.at.value();
        begin = stop;
        continue;
      }
    }
    const uint64_t stop = next == ranges_.end() ? end : std::min(end, next->first);
    ranges_.emplace(begin, Loss{GuestOffset(begin), stop - begin, reason});
    begin = stop;
  }
  if (ranges_.size() > kMost) join_near();
}

// Joins ranges until half of the limit is left.
void Losses::join_near() {
  while (ranges_.size() > kMost / 2) {
    gap_ = std::max<uint64_t>(gap_ * 2, 64 << 10);
    for (auto it = ranges_.begin(); it != ranges_.end();) {
      const auto next = std::next(it);
      if (next == ranges_.end()) break;
      if (next->first - it->second.end().value() > gap_) {
        it = next;
        continue;
      }
      it->second.length = next->second.end() - it->second.at;
      ranges_.erase(next);
    }
  }
}

std::vector<Loss> Losses::list(uint64_t size) const {
  const MutexLock lock(mutex_);
  std::vector<Loss> all;
  for (const auto& [begin, loss] : ranges_) {
    if (begin >= size) break;
    Loss it = loss;
    it.length = std::min(it.length, size - begin);
    if (!all.empty() && all.back().end() == it.at && all.back().reason == it.reason)
      all.back().length += it.length;
    else
      all.push_back(it);
  }
  return all;
}

Loss Losses::next(GuestOffset at) const {
  const MutexLock lock(mutex_);
  auto it = ranges_.upper_bound(at.value());
  if (it != ranges_.begin() && std::prev(it)->second.end() > at) --it;
  return it == ranges_.end() ? Loss{at, 0, LossReason::kUnreadable} : it->second;
}

}  // namespace vc::qcow2
