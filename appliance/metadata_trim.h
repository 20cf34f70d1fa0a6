// Trims a guest's disks without booting an appliance.
#pragma once

#include "appliance/observer.h"
#include "appliance/trim.h"
#include "appliance/trim_report.h"
#include "base/cancel.h"
#include "base/result.h"

namespace vc::appliance {

// Reads the metadata of the guest's filesystems, and discards their free space in the images. Whole
// clusters of it read as zeros afterwards, and the files shrink. Locks the images before it reads
// the metadata, until the end. Leaves a filesystem with doubtful metadata unchanged; its entry in
// the report says why.
//
// In `options`, `passphrases`, `sector_size`, `drop` and `overlay` must have their defaults: only
// an appliance supports them.
//
// Returns an error if a disk is in use or is not a file, if a guest is suspended to disk, or if a
// name in `options` does not exist. Then nothing has changed. After a later error or a
// cancellation, the images are valid and the guest's files are unchanged.
Result<TrimReport> trim_by_metadata(const TrimOptions& options, Observer& observer,
                                    const Cancel& cancel);

}  // namespace vc::appliance
