// The main job: stream the live clusters of a source into a fresh, well laid-out destination.
#pragma once

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/copy_options.h"
#include "copy/copy_summary.h"

namespace copy {

// Copies.  On success the destination is whole, on disk, and under its name; on an error, or when
// `cancel` is requested, nothing of a file is left and an earlier one of that name is untouched.
// The source is never written.
qcow2::Result<CopySummary> copy(const CopyOptions& options, Progress& progress,
                                const Cancel& cancel);

// Finds what would end copy () before it reads any data: opens the source, and looks at options and
// destination.  Writes nothing.
qcow2::Result<void> check(const CopyOptions& options, const Cancel& cancel);

}  // namespace copy
