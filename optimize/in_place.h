// The procedure on the file itself: check, trim, compact.
#pragma once

#include <cstdint>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "optimize/options.h"
#include "optimize/report.h"
#include "qcow2/relocate/in_place.h"

namespace vc::optimize {

struct InPlaceReport {
  OptimizeReport run;                // without copy and swap; `after` is not set in a dry run
  qcow2::InPlaceSummary compaction;  // `before` is that of the whole run
  // Data of the guest's free space that was discarded without the appliance, or would be, in bytes.
  uint64_t discarded = 0;
  // Stopped by the user: the image is consistent, and another run goes on.
  bool stopped = false;
};

// Discards the free space of the guest in the image, and compacts it as `levels` say, without a
// copy. `options` chooses what is trimmed, and how; those of the copy and of the swap have no
// effect. Repairs the image first, if requested.
//
// A dry run writes nothing and boots nothing: it counts the free space that the metadata show.
//
// Returns an error, before anything is written, if the disk is in use, damaged, raw, or the backing
// file of another image. The image is consistent at any time, whatever interrupts the process.
Result<InPlaceReport> optimize_in_place(const OptimizeOptions& options,
                                        const qcow2::InPlaceOptions& levels,
                                        appliance::Observer& observer, Progress& progress,
                                        const Cancel& cancel);

}  // namespace vc::optimize
