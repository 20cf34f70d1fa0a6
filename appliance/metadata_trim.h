// Gives back what a guest does not use of its disks, without booting anything.
#pragma once

#include "appliance/observer.h"
#include "appliance/trim.h"
#include "appliance/trim_report.h"
#include "base/cancel.h"
#include "base/result.h"

namespace vc::appliance {

// Reads the metadata of the guest's filesystems, and discards in its images what they call free:
// what of it makes whole clusters reads as zeros afterwards, and the files become shorter.  The
// images are locked from before the metadata are read until the end.  A filesystem whose metadata
// are not surely right is left as it is, and its entry in the report says why.
//
// Of the options `passphrases`, `sector_size`, `drop` and `overlay` must have their defaults: they
// are for an appliance.
//
// Returns an error when a disk is in use or is not a file, when a guest is suspended to disk, and
// when a name is of nothing: nothing has changed then.  After an error that comes later, or a
// request to cancel, the images are sound and the guest's files are as they were.
Result<TrimReport> trim_by_metadata(const TrimOptions& options, Observer& observer,
                                    const Cancel& cancel);

}  // namespace vc::appliance
