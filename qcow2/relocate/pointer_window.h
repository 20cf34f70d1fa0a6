// The pointers to the last clusters of a file, or to the first ones, in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
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

// Keeps the pointers to one end of a file: to all clusters from a bound on, or up to one.  If there
// are too many, drops those that are farthest from this end, and the bound moves.
class PointerWindow {
 public:
  enum class End { kLast, kFirst };

  // kLast: keeps pointers to `bound` and later clusters.  kFirst: keeps those to clusters before
  // `bound`, which must not be 0.  A stream counts as its cluster that is next to that end.
  //
  // Uses up to 48 bytes of memory for each of the `most` pointers.  `streams`: pointers are L2
  // entries, which may be compressed.
  PointerWindow(const Geometry& geometry, End end, HostCluster bound, size_t most, bool streams)
      : geometry_(geometry),
        end_(end),
        least_(end == End::kLast ? bound.value() : rank(bound) + 1),
        most_(most),
        streams_(streams) {}

  // Adds a pointer, unless it leads past the bound.  An error if too many pointers lead to one
  // cluster.
  Result<void> add(const References::Pointer& pointer);

  // Returns the bound: all pointers to clusters from it on, or before it, are in the window.
  HostCluster bound() const { return HostCluster(end_ == End::kLast ? least_ : ~(least_ - 1)); }
  // Returns the pointers in the order of what they point to.
  Result<std::vector<ClusterPointer>> take();

  // Returns the place that a pointer leads to; that of a stream is not aligned.
  HostOffset target(const ClusterPointer& pointer) const;

 private:
  // A number for each cluster, higher toward the end that is kept.
  uint64_t rank(HostCluster cluster) const {
    return end_ == End::kLast ? cluster.value() : ~cluster.value();
  }
  uint64_t rank_of(uint64_t word) const;
  Result<void> drop_lowest();

  const Geometry geometry_;
  const End end_;
  uint64_t least_;  // rank; lower ones are not kept
  const size_t most_;
  const bool streams_;
  std::vector<ClusterPointer> pointers_;
};

// Visits all clusters of data, and streams, from the start of a file up to `end`: calls `visit`
// with a window of at most `most` pointers at a time, in the order of what these point to.  Ends
// if `visit` returns false.
Result<void> visit_windows(
    const References& references, const Geometry& geometry, HostCluster end, size_t most,
    const std::function<Result<bool>(const PointerWindow& window,
                                     std::span<const ClusterPointer> pointers)>& visit);

}  // namespace vc::qcow2
