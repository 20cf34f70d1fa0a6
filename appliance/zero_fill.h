// Free space of a filesystem that cannot trim.
#pragma once

#include <functional>

#include "appliance/appliance.h"
#include "base/result.h"

namespace vc::appliance {

// Fills the free space of what is mounted at "/" with files of zeros, and removes them again.  The
// zeros become holes on their way to the disk (Appliance::launch), so nothing grows.  The files are
// small: no filesystem has a limit that they meet, and between two of them it can be stopped.
//
// `wrote` is told how many bytes have been filled.
Result<void> zero_fill(const Appliance& appliance, const std::function<void(uint64_t)>& wrote);

}  // namespace vc::appliance
