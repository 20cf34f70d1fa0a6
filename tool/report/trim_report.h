// The report at the end of a trim.
#pragma once

#include <string>

#include "appliance/trim_report.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

// Returns the report as text: a table of filesystems, and the result for each dropped file. Ends
// with a newline.
std::string trim_report(const appliance::TrimReport& report, const Palette& palette);

// Returns the seconds of each step: "boot 30.1, search 7.0".
std::string steps_text(const appliance::TrimReport& report);

// Returns the report as one JSON object, sizes in bytes. Ends with a newline.
std::string trim_report_json(const appliance::TrimReport& report);

}  // namespace vc::tool
