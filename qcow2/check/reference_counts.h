// Counts the references to each cluster of a file, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// Counts clusters from begin () on, in pages that are allocated on demand.  If there are more pages
// than the limit allows, drops the highest ones, and end () falls to the start of the first dropped
// page.  Then add the same references again to a new object that begins there.
class ReferenceCounts {
 public:
  static constexpr uint64_t kPageClusters = 1 << 16;
  static constexpr uint64_t kNoEnd = std::numeric_limits<uint64_t>::max();
  // The largest count; also stands for all larger ones.
  static constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();

  ReferenceCounts(HostCluster begin, size_t most_pages)
      : begin_(begin.value()), most_pages_(most_pages) {}

  // Return the range [begin (), end ()) of the counted clusters. kNoEnd: no end.
  HostCluster begin() const { return HostCluster(begin_); }
  HostCluster end() const;

  // Adds `times` references to each of `count` clusters from `first`; ignores clusters outside the
  // range.  Thread-safe.
  void add(HostCluster first, uint64_t count, uint64_t times);

  // The functions below take no lock: they must not run concurrently with add ().

  uint32_t get(HostCluster cluster) const NO_THREAD_SAFETY_ANALYSIS;
  // Copies the counts of the clusters from `first`, which must be in one page.  Returns false, and
  // leaves `to` unchanged, if all are 0.
  bool copy(HostCluster first, std::span<uint32_t> to) const NO_THREAD_SAFETY_ANALYSIS;
  // Returns the first page (a multiple of kPageClusters) from `from` on that has counts; kNoEnd if
  // there is none.
  uint64_t next_page(uint64_t from) const NO_THREAD_SAFETY_ANALYSIS;

 private:
  // Stores bytes while all counts fit, and words after that.
  struct Page {
    std::vector<uint8_t> narrow;
    std::vector<uint32_t> wide;
    void add(uint64_t first, uint64_t count, uint64_t times);
    uint32_t get(uint64_t at) const { return wide.empty() ? narrow[at] : wide[at]; }
  };

  const uint64_t begin_;
  const size_t most_pages_;
  mutable Mutex mutex_;
  uint64_t end_ GUARDED_BY(mutex_) = kNoEnd;           // a multiple of kPageClusters, or kNoEnd
  std::map<uint64_t, Page> pages_ GUARDED_BY(mutex_);  // by index of the page
};

}  // namespace vc::qcow2
