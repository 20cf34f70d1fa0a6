// What trimming tells at its end.
#pragma once

#include <string>

#include "appliance/trim_report.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

// For a person: a table of filesystems, and what became of the files.  Ends with a newline.
std::string trim_report(const appliance::TrimReport& report, const Palette& palette);

// "boot 30.1, search 7.0": the seconds of each step.
std::string steps_text(const appliance::TrimReport& report);

// For a program: one JSON object, sizes in bytes.  Ends with a newline.
std::string trim_report_json(const appliance::TrimReport& report);

}  // namespace vc::tool
