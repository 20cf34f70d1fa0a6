// Repairs a damaged disk before it is optimized.
#pragma once

#include <string>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/result.h"
#include "optimize/options.h"
#include "optimize/step_log.h"

namespace vc::optimize {

// Repairs the image `disk` if it has damage other than leaks. Leaks need no repair: the copy leaves
// them behind. `with_marks`: also if it is marked dirty or corrupt. Saves the overwritten bytes in
// DISK.undo. Locks the disk for writing, so call it before the chain of the disk is opened. Returns
// whether it was repaired.
Result<bool> repair_disk(const OptimizeOptions& options, const std::string& disk, StepLog& steps,
                         appliance::Observer& observer, const Cancel& cancel,
                         bool with_marks = false);

}  // namespace vc::optimize
