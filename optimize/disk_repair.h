// The repair of a damaged disk before it is optimized.
#pragma once

#include <string>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/result.h"
#include "optimize/options.h"
#include "optimize/step_log.h"

namespace vc::optimize {

// Repairs the image `disk` if it has more damage than leaks, which are left behind in any case.
// What it overwrites is kept in DISK.undo.  Locks the disk for writing, so it must be called before
// the chain of the disk is opened.
Result<void> repair_disk(const OptimizeOptions& options, const std::string& disk, StepLog& steps,
                         appliance::Observer& observer, const Cancel& cancel);

}  // namespace vc::optimize
