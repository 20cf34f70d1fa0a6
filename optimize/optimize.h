// The whole procedure: a bloated disk becomes a small, ordered and healthy one.
//
//     look at it -> find what the guest does not use -> check it -> copy -> verify, and check ->
//     swap
//
// The disk itself is never written.  The metadata of the guest's filesystems tell what is not used:
// that is zeros in the copy.  Where they cannot be believed, and it is worth a boot, filesystems
// are trimmed in the appliance, in a throw-away overlay with granules of 4 KiB, which holds next to
// nothing: what is trimmed is entries in its tables.  What is copied is the overlay then.  The disk
// is locked for reading until all is done, so that no other program writes to it.
#pragma once

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "optimize/options.h"
#include "optimize/report.h"

namespace vc::optimize {

// On an error, when `cancel` is requested, and after a kill the disk is as it was; after a kill
// between the last two steps it is the new one, and the old one is beside it (disk_swap.h).  What
// a killed run left is found by the next, and told.
//
// To be called by a thread that stays until it returns.
Result<OptimizeReport> optimize(const OptimizeOptions& options, appliance::Observer& observer,
                                Progress& progress, const Cancel& cancel);

}  // namespace vc::optimize
