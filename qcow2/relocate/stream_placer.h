// Finds places for the streams of compressed clusters, which share clusters of the file.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/refcounts/refcounts.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// Packs streams into free clusters before a limit.  A stream keeps its offset within a sector,
// since its descriptor counts sectors, and the exact length of its data is unknown.  Two streams
// that share a sector keep their distance if both fit.
class StreamPlacer {
 public:
  // `refcounts` must outlive the object.
  StreamPlacer(Refcounts& refcounts, const Geometry& geometry, HostCluster limit, uint64_t most)
      : refcounts_(refcounts), geometry_(geometry), limit_(limit), most_(most) {}

  // Returns a place for a stream with `times` references; nullopt if there is none.  The caller
  // must add the references to the clusters before the next call.  Streams must come in the order
  // of their offsets, except after a call of restart ().
  Result<std::optional<HostOffset>> place(const CompressedDescriptor& stream, uint64_t times);

  // The next stream comes from another part of the file.
  void restart() { last_end_ = HostOffset(0); }

 private:
  Result<bool> fits(HostOffset at, uint64_t bytes, uint64_t times) const;
  HostOffset take(const CompressedDescriptor& stream, HostOffset at);

  Refcounts& refcounts_;
  const Geometry geometry_;
  const HostCluster limit_;
  const uint64_t most_;  // clusters that may be needed
  HostCluster search_from_;
  uint64_t too_long_ = UINT64_MAX;  // no run of so many free clusters is left
  HostOffset fill_;                 // the first sector that no stream uses, at or before run_end_
  HostOffset run_end_;              // of the free clusters
  // The last stream: its old place, the old end of all so far, and its new place.
  HostOffset last_old_;
  HostOffset last_end_;
  HostOffset last_new_;
};

}  // namespace vc::qcow2
