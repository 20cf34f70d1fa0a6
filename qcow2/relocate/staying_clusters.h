// The clusters that must stay where they are: leaked ones that may be data of a table of zeros.
//
// Their neighbours stay, too: by the places of both, a check recognizes that such a table has lost
// its entries (lost_references.h).
#pragma once

#include <cstdint>
#include <optional>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "qcow2/check/cluster_set.h"
#include "qcow2/format/geometry.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class StayingClusters {
 public:
  // No clusters.
  StayingClusters() = default;
  // Checks the image, whose leaks cannot be freed, and finds them.  Returns Error::unsupported if
  // the file has more clusters than a ClusterSet holds.
  static Result<StayingClusters> find(const Storage& storage, uint64_t count_memory,
                                      Progress& progress, const Cancel& cancel);

  bool contains(HostCluster cluster) const { return set_ && set_->contains(cluster); }
  // Returns whether one of the clusters with these bytes stays.
  bool touches(const Geometry& geometry, HostOffset at, uint64_t length) const;
  // Returns the end of the last one.
  HostCluster end() const { return end_; }

 private:
  void add_leak(HostCluster first, uint64_t count);

  std::optional<ClusterSet> set_;
  HostCluster end_;
};

}  // namespace vc::qcow2
