// The whole procedure: makes a bloated disk small, ordered and healthy.
//
//     inspect -> find unused data -> check -> copy -> verify and check -> swap
//
// Never writes to the disk itself. The metadata of the guest's filesystems tell which data is not
// used; this data reads as zeros in the copy. Where the metadata cannot be trusted, and a boot is
// worthwhile, the appliance trims the filesystems in a temporary overlay, which is then copied.
// The overlay has subclusters of 4 KiB, and stays small: a trim only sets entries in its tables.
// The disk stays locked for reading, so that no other program writes to it.
#pragma once

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "optimize/options.h"
#include "optimize/report.h"

namespace vc::optimize {

// After an error, a cancellation or a kill, the disk is unchanged. After a kill between the last
// two steps, the disk is the new one, and the old one is beside it (disk_swap.h). The next run
// finds what a killed run left, and reports it.
//
// Call this from a thread that lives until the function returns.
Result<OptimizeReport> optimize(const OptimizeOptions& options, appliance::Observer& observer,
                                Progress& progress, const Cancel& cancel);

}  // namespace vc::optimize
