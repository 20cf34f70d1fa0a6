// Fills the free space of a filesystem that cannot trim.
#pragma once

#include <functional>

#include "appliance/appliance.h"
#include "base/result.h"

namespace vc::appliance {

// Fills the free space of the filesystem at "/" with files of zeros, and removes the files. The
// zeros become holes on their way to the disk (Appliance::launch), so the disk does not grow. The
// files are small, so that they meet no size limit, and a cancellation takes effect after the
// current file.
//
// `wrote` is called with the total of filled bytes.
Result<void> zero_fill(const Appliance& appliance, const std::function<void(uint64_t)>& wrote);

}  // namespace vc::appliance
