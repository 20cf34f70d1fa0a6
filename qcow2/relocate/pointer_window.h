// The pointers to the last clusters of a file, in bounded memory.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "qcow2/format/geometry.h"
#include "qcow2/refcounts/references.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// A pointer to a single cluster, or to the stream of a compressed one.
struct ClusterPointer {
  HostOffset at;  // of the word in the file
  uint64_t word;  // its value
  uint64_t times;

  bool compressed(bool streams) const { return streams && (word & kEntryCompressed) != 0; }
};

// Keeps the pointers to all clusters from begin () on.  If there are too many, drops those to the
// lowest clusters, and begin () rises.
class PointerWindow {
 public:
  // Uses up to 48 bytes of memory for each of the `most` pointers.  `streams`: pointers are L2
  // entries, which may be compressed.
  PointerWindow(const Geometry& geometry, HostCluster begin, size_t most, bool streams)
      : geometry_(geometry), begin_(begin), most_(most), streams_(streams) {}

  // Adds a pointer, unless it leads to clusters before begin () only.  An error if too many
  // pointers lead to one cluster.
  Result<void> add(const References::Pointer& pointer);

  HostCluster begin() const { return begin_; }
  // Returns the pointers in the order of what they point to.
  Result<std::vector<ClusterPointer>> take();

  // Returns the place that a pointer leads to; that of a stream is not aligned.
  HostOffset target(const ClusterPointer& pointer) const;

 private:
  HostCluster last_cluster(uint64_t word) const;
  Result<void> drop_lowest();

  const Geometry geometry_;
  HostCluster begin_;
  const size_t most_;
  const bool streams_;
  std::vector<ClusterPointer> pointers_;
};

}  // namespace vc::qcow2
