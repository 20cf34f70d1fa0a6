// Opens the destination of a copy.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/stop.h"
#include "copy/copy_options.h"
#include "copy/copy_plan.h"
#include "copy/sink/destination.h"
#include "copy/transfer.h"

namespace vc::copy {

// Opens or creates the destination of `plan`. Returns an error if the copy will not fit there.
// Changes the clusters of `plan` to those of an existing destination. An image that goes to a pipe
// may need a first pass over the source. `snapshots`: those that follow the disk; nullptr: none.
// `stop` must outlive the destination.
Result<std::unique_ptr<Destination>> open_destination(const CopyOptions& options,
                                                      const CopySource& source, CopyPlan& plan,
                                                      Transfer& transfer, SnapshotCopy* snapshots,
                                                      const Stop& stop);

// Returns an error if an image or raw file cannot be created under the name of the destination.
// Leaves nothing behind.
Result<void> try_destination(const CopyOptions& options, const CopyPlan& plan);

}  // namespace vc::copy
