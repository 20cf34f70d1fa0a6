// What a copy tells at its end.
#pragma once

#include <string>

#include "copy/copier.h"
#include "tool/terminal/terminal.h"

namespace tool {

// For a person: first what was saved, then a table.  Ends with a newline.
std::string copy_report(const copy::CopyOptions& options, const copy::CopySummary& summary,
                        const Palette& palette);

// The ranges that a salvage has lost, a line each, the first ones: for standard error.
std::string lost_ranges(const copy::CopyOptions& options, const copy::CopySummary& summary);

// For a program: one JSON object, sizes in bytes.  Ends with a newline.
std::string copy_report_json(const copy::CopyOptions& options, const copy::CopySummary& summary);

}  // namespace tool
