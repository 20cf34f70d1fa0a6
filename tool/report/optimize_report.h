// What an optimization tells at its end.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "optimize/optimize.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

// For a person: what was saved, a table of before and after, and where the time went.  Ends with a
// newline.
std::string optimize_report(const std::string& disk, const optimize::OptimizeReport& report,
                            const Palette& palette);

// For a program.  Sizes in bytes.
nlohmann::ordered_json optimize_report_json(const std::string& disk,
                                            const optimize::OptimizeReport& report);

}  // namespace vc::tool
