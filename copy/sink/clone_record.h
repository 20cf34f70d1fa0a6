// The parts of a disk that were cloned: a set of groups of clusters.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "base/mutex.h"

namespace vc::copy {

// Memory: one bit for each group, where there are clones; 32 MiB for 16 TiB in groups of 64 KiB.
// Thread-safe.
class CloneRecord {
 public:
  void add(uint64_t group) {
    const MutexLock lock(mutex_);
    pages_[group / kPage][group % kPage / 64] |= uint64_t{1} << group % 64;
  }
  bool has(uint64_t group) const {
    const MutexLock lock(mutex_);
    const auto page = pages_.find(group / kPage);
    return page != pages_.end() && (page->second[group % kPage / 64] >> group % 64 & 1) != 0;
  }
  bool empty() const {
    const MutexLock lock(mutex_);
    return pages_.empty();
  }

 private:
  static constexpr uint64_t kPage = 32768;  // groups

  mutable Mutex mutex_;
  std::map<uint64_t, std::array<uint64_t, kPage / 64>> pages_ GUARDED_BY(mutex_);
};

}  // namespace vc::copy
