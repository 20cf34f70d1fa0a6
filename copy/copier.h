// Copies the live clusters of a source into a new destination with a compact layout.
#pragma once

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/copy_options.h"
#include "copy/copy_summary.h"

namespace vc::copy {

// Copies a disk. On success the destination is complete, on stable storage, and under its name. On
// an error or when `cancel` is requested, no file is left, and an existing file of that name is
// unchanged. Never writes to the source.
Result<CopySummary> copy(const CopyOptions& options, Progress& progress, const Cancel& cancel);

// Checks for errors that copy() would meet before it reads data: opens the source, and checks
// options and destination. Writes nothing.
Result<void> check(const CopyOptions& options, const Cancel& cancel);

}  // namespace vc::copy
