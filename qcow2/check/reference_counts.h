// How often each cluster of a file is referred to, in memory that does not grow with the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <span>
#include <vector>

#include "storage/offset.h"

namespace qcow2 {

// Counts clusters from begin () on in pages that exist where something was counted.  When there are
// more pages than the limit allows the highest go, and end () falls to where they began: then the
// same references are to be added again to the next object, which begins there.
class ReferenceCounts {
 public:
  static constexpr uint64_t kPageClusters = 1 << 16;
  static constexpr uint64_t kNoEnd = std::numeric_limits<uint64_t>::max();
  // A count that is as large, or larger.
  static constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();

  ReferenceCounts(HostCluster begin, size_t most_pages)
      : begin_(begin.value()), most_pages_(most_pages) {}

  // Clusters that this counts: from begin () up to, but not with, end ().  kNoEnd: all others.
  HostCluster begin() const { return HostCluster(begin_); }
  HostCluster end() const;

  // `times` references to each of `count` clusters from `first` on; what is outside is passed over.
  // Thread-safe.
  void add(HostCluster first, uint64_t count, uint64_t times);

  // Not beside add ().
  uint32_t get(HostCluster cluster) const;
  // The counts of the clusters from `first` on, which lie in one page.  False: all are 0, and
  // nothing was written to `to`.
  bool copy(HostCluster first, std::span<uint32_t> to) const;
  // The first page (a multiple of kPageClusters) at or behind `from` in which anything is counted;
  // kNoEnd: none.
  uint64_t next_page(uint64_t from) const;

 private:
  // Bytes while no count is larger; words from then on.
  struct Page {
    std::vector<uint8_t> narrow;
    std::vector<uint32_t> wide;
    void add(uint64_t first, uint64_t count, uint64_t times);
    uint32_t get(uint64_t at) const { return wide.empty() ? narrow[at] : wide[at]; }
  };

  const uint64_t begin_;
  const size_t most_pages_;
  mutable std::mutex mutex_;
  uint64_t end_ = kNoEnd;           // guarded by mutex_; a multiple of kPageClusters, or kNoEnd
  std::map<uint64_t, Page> pages_;  // guarded by mutex_; by number of the page
};

}  // namespace qcow2
