// Gives back what a guest does not use of its disks.
#pragma once

#include "appliance/observer.h"
#include "appliance/trim_options.h"
#include "appliance/trim_report.h"
#include "base/cancel.h"
#include "base/result.h"

namespace vc::appliance {

// Boots an appliance on the disks, and in it trims every filesystem that can be mounted, twice, and
// then syncs; where there is no trimming fills its free space with zeros, which become holes;
// discards swap partitions but for their header, and the free space of volume groups.  What is in
// no partition stays as it is.
//
// The sectors are as large as each disk's partition table says.  Of a disk whose table is damaged
// nothing is trimmed, which a warning says; if there is no other, or no disk has data, there is no
// appliance.
//
// An error when nothing can be done: a disk is in use or cannot be trimmed; a Windows disk is
// hibernated or was not shut down cleanly, or a Linux guest is suspended to disk; a name is of
// nothing.  Then nothing has been trimmed.  What goes wrong with a single filesystem later is in
// the report.  An error that comes later is one of the disk as a whole, such as what the server
// says when it is asked to flush.
//
// When `cancel` is requested the filesystems are unmounted if they can be within seconds; images
// are whole in any case.  Locks, servers and processes are gone on return.
//
// To be called by a thread that stays until it returns.
Result<TrimReport> trim(const TrimOptions& options, Observer& observer, const Cancel& cancel);

}  // namespace vc::appliance
