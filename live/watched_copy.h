// Copies the frozen base of a running guest, and stops before the storage is full.
#pragma once

#include "base/result.h"
#include "copy/copy_options.h"
#include "copy/copy_summary.h"
#include "live/context.h"
#include "live/folder.h"

namespace vc::live {

// Like copy::copy(). Also ends with an error if the overlay of the guest and the copy leave less
// free space than the reserve.
Result<copy::CopySummary> copy_watched(const RunContext& context, const LiveFolder& folder,
                                       const copy::CopyOptions& how);

}  // namespace vc::live
