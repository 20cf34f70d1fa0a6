#include "qcow2/check/reference_counts.h"

#include <algorithm>

namespace vc::qcow2 {

namespace {

constexpr uint32_t kMostNarrow = std::numeric_limits<uint8_t>::max();

}  // namespace

void ReferenceCounts::Page::add(uint64_t first, uint64_t count, uint64_t times) {
  if (wide.empty() && narrow.empty()) narrow.resize(kPageClusters);
  for (uint64_t at = first; at < first + count; ++at) {
    const uint64_t sum = get(at) + times;
    if (wide.empty() && sum > kMostNarrow) {
      wide.assign(narrow.begin(), narrow.end());
      narrow = {};
    }
    if (wide.empty())
      narrow[at] = static_cast<uint8_t>(sum);
    else
      wide[at] = static_cast<uint32_t>(std::min<uint64_t>(sum, kMost));
  }
}

HostCluster ReferenceCounts::end() const {
  const MutexLock lock(mutex_);
  return HostCluster(end_);
}

void ReferenceCounts::add(HostCluster first, uint64_t count, uint64_t times) {
  times = std::min<uint64_t>(times, kMost);
  const MutexLock lock(mutex_);
  uint64_t from = std::max(first.value(), begin_);
  while (from < first.value() + count && from < end_) {
    const uint64_t page = from / kPageClusters;
    const uint64_t to = std::min(first.value() + count, (page + 1) * kPageClusters);
    auto found = pages_.find(page);
    if (found == pages_.end()) {
      if (pages_.size() >= most_pages_) {
        const auto last = std::prev(pages_.end());
        end_ = std::max(page, last->first) * kPageClusters;
        if (last->first < page) break;
        pages_.erase(last);
      }
      found = pages_.emplace(page, Page()).first;
    }
    found->second.add(from % kPageClusters, to - from, times);
    from = to;
  }
}

uint32_t ReferenceCounts::get(HostCluster cluster) const {
  const auto found = pages_.find(cluster.value() / kPageClusters);
  return found == pages_.end() ? 0 : found->second.get(cluster.value() % kPageClusters);
}

uint64_t ReferenceCounts::next_page(uint64_t from) const {
  const auto found = pages_.lower_bound(from / kPageClusters);
  return found == pages_.end() ? kNoEnd : found->first * kPageClusters;
}

bool ReferenceCounts::copy(HostCluster first, std::span<uint32_t> to) const {
  const auto found = pages_.find(first.value() / kPageClusters);
  if (found == pages_.end()) return false;
  const uint64_t begin = first.value() % kPageClusters;
  for (uint64_t i = 0; i < to.size(); ++i) to[i] = found->second.get(begin + i);
  return true;
}

}  // namespace vc::qcow2
