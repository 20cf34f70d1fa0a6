// Which domains and disks are refused, and why.
#pragma once

#include <istream>
#include <string>

#include "base/result.h"
#include "live/context.h"
#include "live/folder.h"
#include "live/journal.h"
#include "live/report.h"

namespace vc::live {

// What works for a disk that is refused.
inline constexpr const char* kOffline =
    "shut the guest down, and run virt-compact optimize on its disk";

// Returns an error if the file `top`, to which a guest writes, is an overlay of a run that was
// stopped, or is under way.
Result<void> check_not_stopped(const std::string& top);

// Returns an error if a name that a run needs exists, or if the disk has hard links.
Result<void> check_names(const LiveFolder& folder);

// Returns an error if the image of a guest that runs cannot be optimized. `what` is for messages.
// Sets `report.before`. The guest writes to the image, but not to its header, snapshots and
// bitmaps.
Result<void> check_image_file(const RunContext& context, const LiveFolder& folder,
                              const std::string& what, LiveDiskReport& report);

// Returns an error if the disks of `domain` cannot be exchanged.
Result<void> check_domain(const libvirt::LiveDomain& domain);

// Returns true if these settings of libvirt's QEMU driver (qemu.conf) turn a lock manager on.
bool sets_lock_manager(std::istream& settings);

// Returns an error if an overlay of the run has an internal snapshot, which would be lost with it.
Result<void> check_no_new_snapshots(const LiveFolder& folder);

// Returns the first record of a run, without the names of the disk in its guest.
Result<Record> new_record(const RunContext& context, const LiveFolder& folder);

}  // namespace vc::live
