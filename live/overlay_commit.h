// Writes the content of an overlay into its backing file, while no domain uses them.
#pragma once

#include <string>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "live/folder.h"

namespace vc::live {

// Writes what the image `overlay` of `folder` has over its backing file `base` into `base`. The
// disk that `overlay` shows stays the same, also after an interruption, so that another call
// completes it. Returns an error, without a change, if a process uses one of the files, or if
// `base` is not the backing file.
Result<void> commit_overlay(const LiveFolder& folder, const std::string& overlay,
                            const std::string& base, Progress& progress, const Cancel& cancel);

}  // namespace vc::live
