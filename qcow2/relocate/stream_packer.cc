#include "qcow2/relocate/stream_packer.h"

#include <algorithm>

namespace vc::qcow2 {

namespace {

// The most free clusters that one search takes.
constexpr uint64_t kMostRun = 256;
// The file grows by this many bytes.
constexpr uint64_t kGrowth = 1 << 20;

}  // namespace

// Returns whether a stream fits at area.fill.
Result<bool> StreamPacker::fits(const Area& area, uint64_t bytes, uint64_t times) const {
  if (!has_run(area, bytes)) return false;
  const HostCluster last = geometry_.host_cluster_of(area.fill + (bytes - 1));
  // Clusters without a stream may have been allocated for refcounts meanwhile.
  const HostCluster first_empty(geometry_.clusters_for(area.fill.value()));
  for (HostCluster it = geometry_.host_cluster_of(area.fill); it <= last; ++it) {
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_.get(it));
    if (count + times > most_times_ || (it >= first_empty && count > 0)) return false;
  }
  return true;
}

// Takes the next free clusters.  Returns false if there are none.
Result<bool> StreamPacker::find_run(Area& area) {
  ASSIGN_OR_RETURN(const ClusterRun run, refcounts_.find_free(area.hint, area.limit, 1, kMostRun));
  if (run.count == 0) {
    area.hint = std::max(area.hint, area.limit);
    return false;
  }
  const HostOffset first = geometry_.start_of(run.first);
  if (first != area.end) area.fill = first;
  area.end = geometry_.start_of(run.end());
  area.hint = run.end();
  return true;
}

Result<std::optional<HostOffset>> StreamPacker::place_stream_in(Area& area, uint64_t bytes,
                                                                uint64_t times) {
  while (true) {
    ASSIGN_OR_RETURN(const bool there, fits(area, bytes, times));
    if (there) {
      const HostOffset at = area.fill;
      area.fill += bytes;
      return at;
    }
    if (has_run(area, bytes)) {
      // One of the clusters takes no more references.
      area.fill = geometry_.start_of(geometry_.host_cluster_of(area.fill) + 1);
      continue;
    }
    ASSIGN_OR_RETURN(const bool more, find_run(area));
    if (!more) return std::optional<HostOffset>();
  }
}

Result<std::optional<HostCluster>> StreamPacker::place_cluster_in(Area& area) {
  const HostCluster next(geometry_.clusters_for(area.fill.value()));
  if (geometry_.start_of(next) < area.end) {
    // What follows is searched again.
    area.end = geometry_.start_of(next);
    area.hint = next;
  }
  ASSIGN_OR_RETURN(const ClusterRun run, refcounts_.find_free(area.hint, area.limit, 1, 1));
  area.hint = run.count == 0 ? std::max(area.hint, area.limit) : run.end();
  if (run.count == 0) return std::optional<HostCluster>();
  return run.first;
}

Result<void> StreamPacker::extend_file() {
  const uint64_t wanted = std::max<uint64_t>(kGrowth >> geometry_.cluster_bits(), 1);
  ASSIGN_OR_RETURN(const ClusterRun run, refcounts_.find_past_end(wanted));
  if (past_.limit != run.first) past_.hint = run.first;
  past_.limit = run.end();
  // Copied zeros are holes, which do not extend the file.
  const uint64_t end = geometry_.start_of(run.end()).value();
  ASSIGN_OR_RETURN(const uint64_t size, storage_.size());
  if (size < end) RETURN_IF_ERROR(storage_.resize(end));
  return {};
}

Result<HostOffset> StreamPacker::place_stream(uint64_t bytes, uint64_t times) {
  ASSIGN_OR_RETURN(auto place, place_stream_in(inner_, bytes, times));
  while (!place) {
    ASSIGN_OR_RETURN(place, place_stream_in(past_, bytes, times));
    if (!place) RETURN_IF_ERROR(extend_file());
  }
  return *place;
}

Result<HostCluster> StreamPacker::place_cluster() {
  ASSIGN_OR_RETURN(auto place, place_cluster_in(inner_));
  while (!place) {
    ASSIGN_OR_RETURN(place, place_cluster_in(past_));
    if (!place) RETURN_IF_ERROR(extend_file());
  }
  return *place;
}

}  // namespace vc::qcow2
