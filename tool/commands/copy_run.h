// A copy with progress, that ends when the user asks: for commands of which it is a part.
#pragma once

#include "base/result.h"
#include "copy/copier.h"
#include "tool/terminal/console.h"

namespace tool {

// Makes options.destination.  Cancelled by SIGINT and the like, with an error that says that there
// is no destination now.
qcow2::Result<copy::CopySummary> run_copy(const copy::CopyOptions& options, const Console& console);

}  // namespace tool
