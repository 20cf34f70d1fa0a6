// Checks of free space before the copy starts.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"
#include "base/stop.h"
#include "copy/pipeline/cluster_worker.h"
#include "copy/source/source.h"
#include "qcow2/build/builder.h"
#include "storage/output_file.h"

namespace vc::copy {

class SnapshotCopy;

// Returns an error if the copy will not fit into the destination's filesystem. First checks the
// upper bound: no zeros, no compression. If that does not fit, samples of the source estimate the
// share of zeros and the compression ratio. `snapshots` are part of the copy; nullptr: none.
Result<void> check_space(Source& source, const qcow2::BuildOptions& build,
                         const ClusterWorker::Options& worker, const OutputFile& out,
                         const Stop& stop, SnapshotCopy* snapshots = nullptr);

// Same for a raw disk, where only non-zero data takes space.
Result<void> check_raw_space(Source& source, const ClusterWorker::Options& worker,
                             const OutputFile& out, const Stop& stop);

// Calls `visit(first, clusters)` for each run of destination clusters that are not all zeros
// according to the source. Runs are in order, without overlap.
Result<void> for_each_live_run(Source& source, const qcow2::Geometry& geometry, const Stop& stop,
                               const std::function<void(ClusterIndex, uint64_t)>& visit);

// Returns the number of destination clusters that are not all zeros according to the source.
Result<uint64_t> count_live_clusters(Source& source, const qcow2::Geometry& geometry,
                                     const Stop& stop);

// Returns the maximum bytes that `live` clusters will take, without the metadata of an image, if
// their data is cloned. `worker` has clones.
Result<uint64_t> bytes_with_clones(Source& source, uint64_t live,
                                   const ClusterWorker::Options& worker, const Stop& stop);

// Returns an estimate, from samples, of the bytes that `live` clusters will take.
Result<uint64_t> estimate_bytes(Source& source, uint64_t live, const ClusterWorker::Options& worker,
                                const Stop& stop);

}  // namespace vc::copy
