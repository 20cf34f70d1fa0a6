// Trims a guest's disks in an appliance.
#pragma once

#include "appliance/observer.h"
#include "appliance/trim_options.h"
#include "appliance/trim_report.h"
#include "base/cancel.h"
#include "base/result.h"

namespace vc::appliance {

// Boots an appliance on the disks. Trims every filesystem that can be mounted, twice, and syncs.
// Fills the free space of filesystems that cannot trim with zeros, which become holes. Discards
// swap partitions except for their headers, and the free space of volume groups. Leaves space
// outside of partitions unchanged.
//
// Takes the sector size from each disk's partition table. Skips disks with a damaged table, with a
// warning. Boots nothing if no disk is left, or if no disk has data.
//
// Returns an error if nothing can be done: a disk is in use or cannot be trimmed; a Windows disk is
// hibernated or was not shut down cleanly; a Linux guest is suspended to disk; a name in `options`
// does not exist. Then nothing has been trimmed. A later failure of a single filesystem is in the
// report. A later error concerns a disk as a whole, such as a failed flush of its server.
//
// When `cancel` is requested, unmounts the filesystems if that takes only seconds. The images are
// valid in any case. On return, all locks, servers and processes are gone.
//
// Call this from a thread that lives until the function returns.
Result<TrimReport> trim(const TrimOptions& options, Observer& observer, const Cancel& cancel);

}  // namespace vc::appliance
