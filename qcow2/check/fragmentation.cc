#include "qcow2/check/fragmentation.h"

#include <algorithm>

namespace vc::qcow2 {

double Fragmentation::Figures::percent(const Geometry& geometry) const {
  const uint64_t clusters = geometry.clusters_for(plain_bytes) + compressed_clusters;
  if (clusters < 2 || runs < 2) return 0;
  // With subclusters there may be more runs than clusters.
  return 100.0 * static_cast<double>(std::min(runs, clusters) - 1) /
         static_cast<double>(clusters - 1);
}

bool Fragmentation::near(HostOffset at) const {
  return (at > end_ ? at - end_ : end_ - at) <= kNear;
}

// `shared`: bytes of the range that were read before.
void Fragmentation::step(HostOffset at, uint64_t length, bool follows, bool is_near,
                         uint64_t shared) {
  if (!follows) {
    ++figures_.runs;
    if (last_ != Last::kNothing && !is_near) ++figures_.seeks;
    run_ = 0;
    shared = 0;
  }
  run_ += length - shared;
  figures_.read_bytes += length - shared;
  figures_.longest_run = std::max(figures_.longest_run, run_);
  begin_ = at;
  end_ = at + length;
}

void Fragmentation::plain(HostOffset at, uint64_t length) {
  bool follows = last_ == Last::kPlain && at == end_;
  // The previous streams end somewhere in a cluster: the closest possible cluster is the next one;
  // this read may be a later subcluster of it.
  if (last_ == Last::kCompressed) {
    const uint64_t next = geometry_.clusters_for(end_.value());
    follows = geometry_.host_cluster_of(at).value() == next;
  }
  step(at, length, follows, near(at), 0);
  figures_.plain_bytes += length;
  last_ = Last::kPlain;
}

void Fragmentation::compressed(HostOffset at, uint64_t length) {
  const bool after_stream = last_ == Last::kCompressed;
  const bool in_last_sector =
      after_stream && at > begin_ && at < end_ && end_ - at < Geometry::kSectorSize;
  const bool follows = in_last_sector || (last_ != Last::kNothing && at == end_);
  if (after_stream) {
    ++figures_.compressed_steps;
    if (follows || near(at)) ++figures_.compressed_steps_near;
  }
  step(at, length, follows, near(at), in_last_sector ? std::min(end_ - at, length) : 0);
  ++figures_.compressed_clusters;
  figures_.compressed_bytes += length;
  last_ = Last::kCompressed;
}

}  // namespace vc::qcow2
