// Makes a Linux guest trim its filesystems by itself, once a week.
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
    kWasEnabled,  // fstrim.timer is enabled already
    kEnabled,     // it is now; or would be, if nothing is to be written
    kMasked,      // somebody has forbidden it: it stays so
    kMissing,     // there is no fstrim.timer that could be enabled
    kWindows,     // has another way
    kUnknown,     // neither Linux nor Windows
  };

  std::string root;     // "/dev/sda1"
  std::string product;  // "Debian GNU/Linux 12 (bookworm)"; empty: cannot be told
  State state = State::kUnknown;
};

// Boots an appliance on the disks of one guest and enables fstrim.timer in every Linux that is
// there, by the link that `systemctl enable` makes.  Without `apply` nothing is written: it only
// tells.
//
// An error when a disk is in use, when there is no operating system on it, or when a Linux is
// suspended to disk.  To be called by a thread that stays until it returns.
Result<std::vector<TimerReport>> enable_trim_timer(const std::vector<DiskName>& disks, bool apply,
                                                   Observer& observer, const Cancel& cancel);

}  // namespace vc::appliance
