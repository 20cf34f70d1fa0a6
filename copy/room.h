// Is there room for the copy, before it starts?
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

namespace copy {

// An error, in words, if what the copy will take does not fit into the destination's filesystem.
// First the cheap question: would it fit if nothing were zeros and nothing got smaller?  If not,
// samples of the source say how much of it is zeros and how well it compresses.
qcow2::Result<void> check_room(Source& source, const qcow2::BuildOptions& build,
                               const ClusterWorker::Options& worker, const qcow2::OutputFile& out,
                               const Stop& stop);

// The same for a raw disk, of which only what is no zeros takes room.
qcow2::Result<void> check_raw_room(Source& source, const ClusterWorker::Options& worker,
                                   const qcow2::OutputFile& out, const Stop& stop);

// Calls `visit (first, clusters)` for each run of the destination's clusters that hold something
// other than what the source calls zeros, in order, no cluster twice.
qcow2::Result<void> for_each_live_run(
    Source& source, const qcow2::Geometry& geometry, const Stop& stop,
    const std::function<void(qcow2::ClusterIndex, uint64_t)>& visit);

// The destination's clusters that hold something other than what the source calls zeros.
qcow2::Result<uint64_t> count_live_clusters(Source& source, const qcow2::Geometry& geometry,
                                            const Stop& stop);

// The bytes that `live` clusters will take, guessed from samples of them.
qcow2::Result<uint64_t> estimate_bytes(Source& source, uint64_t live,
                                       const ClusterWorker::Options& worker, const Stop& stop);

}  // namespace copy
