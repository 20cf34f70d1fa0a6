// What a copy decides before it starts: layout, codec, threads and memory.
#pragma once

#include <string>

#include "base/result.h"
#include "copy/copy_options.h"
#include "copy/destination_type.h"
#include "copy/pipeline/cluster_worker.h"
#include "copy/pipeline/pipeline.h"
#include "copy/source/source.h"
#include "qcow2/format/build_options.h"

namespace vc::copy {

struct CopyPlan {
  // Decides. Makes the source keep the backing file that the options name. Returns an error for
  // options that do not fit together, for example an invalid level.
  static Result<CopyPlan> create(const CopyOptions& options, const DestinationType& destination,
                                 Source& source);

  // Returns the options of a pipeline from `source`, without a rate limit.
  Pipeline::Options pipeline(const CopyOptions& options, const Source& source) const;

  DestinationType destination;
  qcow2::BuildOptions build;      // for a QCOW2 destination
  ClusterWorker::Options worker;  // clusters and codec
};

// Returns the path of the backing file that is kept. Its name is relative to the folder of the new
// image.
Result<std::string> backing_path(const CopyOptions& options, const DestinationType& destination);

}  // namespace vc::copy
