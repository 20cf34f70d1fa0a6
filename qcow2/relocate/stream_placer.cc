#include "qcow2/relocate/stream_placer.h"

#include <algorithm>

#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

Result<bool> StreamPlacer::fits(HostOffset at, uint64_t bytes, uint64_t times) const {
  if (at + bytes > run_end_) return false;
  const HostCluster last = geometry_.host_cluster_of(at + (bytes - 1));
  // Clusters that have no stream yet may have been allocated for something else meanwhile.
  const HostCluster first_empty(geometry_.clusters_for(fill_.value()));
  for (HostCluster it = geometry_.host_cluster_of(at); it <= last; ++it) {
    ASSIGN_OR_RETURN(const bool counted, refcounts_.can_add(it, times));
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_.get(it));
    if (!counted || (it >= first_empty && count > 0)) return false;
  }
  return true;
}

HostOffset StreamPlacer::take(const CompressedDescriptor& stream, HostOffset at) {
  last_old_ = stream.offset;
  last_new_ = at;
  last_end_ = std::max(last_end_, stream.offset + stream.readable_bytes());
  fill_ = std::max(fill_, at + stream.readable_bytes());
  return at;
}

Result<std::optional<HostOffset>> StreamPlacer::place(const CompressedDescriptor& stream,
                                                      uint64_t times) {
  const uint64_t bytes = stream.readable_bytes();
  const uint64_t in_sector = stream.offset.value() % Geometry::kSectorSize;
  if (stream.offset < last_end_) {
    const HostOffset at = last_new_ + (stream.offset - last_old_);
    ASSIGN_OR_RETURN(const bool there, fits(at, bytes, times));
    if (there) return take(stream, at);
  }
  ASSIGN_OR_RETURN(const bool next, fits(fill_ + in_sector, bytes, times));
  if (next) return take(stream, fill_ + in_sector);

  const uint64_t clusters = geometry_.clusters_for(in_sector + bytes);
  if (clusters >= too_long_) return std::optional<HostOffset>();
  ASSIGN_OR_RETURN(const ClusterRun run,
                   refcounts_.find_free(search_from_, limit_, clusters, std::max(clusters, most_)));
  if (run.count == 0) {
    too_long_ = clusters;
    return std::optional<HostOffset>();
  }
  // Shorter runs may be long enough for the next stream, but most streams need one cluster.
  search_from_ = run.first;
  fill_ = geometry_.start_of(run.first);
  run_end_ = geometry_.start_of(run.end());
  return take(stream, fill_ + in_sector);
}

}  // namespace vc::qcow2
