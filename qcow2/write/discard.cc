// Discards ranges of a DiskWriter: the whole clusters and subclusters in them.
#include <algorithm>

#include "base/rounding.h"
#include "qcow2/write/disk_writer.h"

namespace vc::qcow2 {

Result<void> DiskWriter::discard(GuestOffset at, uint64_t length) {
  // In version 2 a hole would expose the backing file: old data of the guest.
  if (image_->header().version < 3 && has_backing()) return {};
  const Epochs::Ticket ticket(epochs_);
  const uint64_t cluster_size = geometry_.cluster_size();
  const GuestOffset end = at + length;
  const ClusterIndex first(geometry_.clusters_for(at.value()));
  const ClusterIndex stop = end.value() == size() ? ClusterIndex(geometry_.clusters_for(size()))
                                                  : ClusterIndex(end.value() / cluster_size);
  if (extended() && !has_data_file()) {
    const GuestOffset whole = std::min(geometry_.start_of(first), end);
    RETURN_IF_ERROR(discard_part(at, whole));
    if (first <= stop)
      RETURN_IF_ERROR(discard_part(std::max(geometry_.start_of(stop), whole), end));
  }
  return first < stop ? zero_clusters(first, stop, true) : Result<void>{};
}

// Discards the whole subclusters in a part of a cluster.
Result<void> DiskWriter::discard_part(GuestOffset at, GuestOffset end) {
  const uint64_t unit = geometry_.subcluster_size();
  const GuestOffset first(round_up(at.value(), unit));
  if (end.value() != size()) end = GuestOffset(round_down(end.value(), unit));
  if (first >= end) return {};
  ASSIGN_OR_RETURN(const bool zero, reads_as_zero(first, end - first));
  if (zero) return {};
  {
    const auto lock = map_->lock_shared();
    const ClusterIndex cluster = geometry_.cluster_of(first);
    ASSIGN_OR_RETURN(const auto entry, mapping_->entries(cluster, cluster + 1));
    if (entry.front().compressed()) return {};
  }
  return zero_subclusters(first, end - first, true);
}

}  // namespace vc::qcow2
