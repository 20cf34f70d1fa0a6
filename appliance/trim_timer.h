// Enables the weekly trim in a Linux guest.
#pragma once

#include <string>
#include <vector>

#include "appliance/guest_disk.h"
#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/result.h"

namespace vc::appliance {

// An operating system on the disks.
struct TimerReport {
  enum class State {
    kWasEnabled,  // fstrim.timer was enabled already
    kEnabled,     // enabled now, or would be with `apply`
    kMasked,      // the administrator has masked it: unchanged
    kMissing,     // there is no fstrim.timer
    kWindows,     // Windows has its own schedule
    kUnknown,     // neither Linux nor Windows
  };

  std::string root;     // "/dev/sda1"
  std::string product;  // "Debian GNU/Linux 12 (bookworm)"; empty: unknown
  State state = State::kUnknown;
};

// Boots an appliance on the disks of one guest, and enables fstrim.timer in every Linux on them,
// with the link that `systemctl enable` makes. Without `apply`, changes nothing and only reports.
//
// Returns an error if a disk is in use, has no operating system, or holds a suspended Linux guest.
// Call this from a thread that lives until the function returns.
Result<std::vector<TimerReport>> enable_trim_timer(const std::vector<GuestDiskName>& disks,
                                                   bool apply, Observer& observer,
                                                   const Cancel& cancel);

}  // namespace vc::appliance
