// The image of a guest that writes to an overlay meanwhile: overlays over it, and its fresh copy.
#pragma once

#include <string>

#include "base/result.h"
#include "live/attributes.h"
#include "live/context.h"
#include "live/folder.h"
#include "live/run_meter.h"

namespace vc::live {

// Creates the image `name` over the image `base`, with the access rights that `base` has while no
// domain uses it. `owner`: of `base` then.
Result<void> create_overlay(const LiveFolder& folder, const std::string& name,
                            const std::string& base, const Owner& owner);

// Copies folder.backup(), to which nothing writes, to folder.fresh(), and verifies the copy.
// Returns false if the gain is too small.
Result<bool> copy_frozen_base(const RunContext& context, const LiveFolder& folder,
                              const Owner& owner, RunMeter& meter, LiveDiskReport& report);

}  // namespace vc::live
