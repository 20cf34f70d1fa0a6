// Decides whether a copy may share blocks with its source.
#pragma once

#include "base/result.h"
#include "copy/copy_options.h"
#include "copy/copy_plan.h"
#include "copy/source/source.h"

namespace vc::copy {

// Returns whether plain data can be cloned, as far as source, destination and options are
// concerned; the filesystem may still refuse. Returns an error that says why not, if the options
// demand clones.
Result<bool> may_clone(const CopyOptions& options, const CopyPlan& plan, const Source& source);

}  // namespace vc::copy
