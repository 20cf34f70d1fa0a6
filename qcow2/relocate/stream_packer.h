// Finds places for new streams of compressed clusters, and for plain clusters, without gaps.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "qcow2/format/geometry.h"
#include "qcow2/refcounts/refcounts.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Fills the free clusters of the file from its start up to a limit, and after that clusters past
// the end of the file.  A stream begins directly after the previous one, if the next clusters are
// free.  Never goes back: free clusters before the last place stay free.
class StreamPacker {
 public:
  // `storage` and `refcounts` must outlive the object.  `most_times` is the highest refcount that
  // streams may cause.
  StreamPacker(Storage& storage, Refcounts& refcounts, const Geometry& geometry,
               uint64_t most_times)
      : storage_(storage), refcounts_(refcounts), geometry_(geometry), most_times_(most_times) {}

  // Sets the limit, which must not fall.
  void set_limit(HostCluster limit) { inner_.limit = limit; }

  // Return a place for a stream of 1 to cluster_size bytes with up to `most_times` references, or
  // for a plain cluster.  The caller must set the refcounts before the next call.
  Result<HostOffset> place_stream(uint64_t bytes, uint64_t times);
  Result<HostCluster> place_cluster();

 private:
  // A part of the file.
  struct Area {
    HostOffset fill;    // end of the last stream
    HostOffset end;     // of the free clusters after it
    HostCluster hint;   // clusters from here on were not searched
    HostCluster limit;  // of the search
  };

  bool has_run(const Area& area, uint64_t bytes) const { return area.fill + bytes <= area.end; }
  Result<bool> fits(const Area& area, uint64_t bytes, uint64_t times) const;
  Result<bool> find_run(Area& area);
  Result<std::optional<HostOffset>> place_stream_in(Area& area, uint64_t bytes, uint64_t times);
  Result<std::optional<HostCluster>> place_cluster_in(Area& area);
  Result<void> extend_file();

  Storage& storage_;
  Refcounts& refcounts_;
  const Geometry geometry_;
  const uint64_t most_times_;
  Area inner_;
  Area past_;  // past the end of the file as it was
};

}  // namespace vc::qcow2
