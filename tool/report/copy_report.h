// The report at the end of a copy.
#pragma once

#include <string>

#include "copy/copier.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

// Returns the report as text: first the savings, then a table. Ends with a newline.
std::string copy_report(const copy::CopyOptions& options, const copy::CopySummary& summary,
                        const Palette& palette);

// Returns the first ranges that a salvage lost, one per line, for standard error.
std::string lost_ranges(const copy::CopyOptions& options, const copy::CopySummary& summary);

// Returns the report as one JSON object, sizes in bytes. Ends with a newline.
std::string copy_report_json(const copy::CopyOptions& options, const copy::CopySummary& summary);

}  // namespace vc::tool
