// Runs a copy with progress and signal handling, for commands that include a copy.
#pragma once

#include "base/result.h"
#include "copy/copier.h"
#include "tool/terminal/console.h"

namespace vc::tool {

// Creates options.destination. A signal such as SIGINT cancels the copy; the error then says that
// no destination is left.
Result<copy::CopySummary> run_copy(const copy::CopyOptions& options, const Console& console);

}  // namespace vc::tool
