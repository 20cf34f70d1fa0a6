// The report at the end of an optimization.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "optimize/optimize.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

// Returns the report as text: the savings, a table of before and after, and the time of each step.
// Ends with a newline.
std::string optimize_report(const std::string& disk, const optimize::OptimizeReport& report,
                            const Palette& palette);

// Returns the report as JSON, sizes in bytes.
nlohmann::ordered_json optimize_report_json(const std::string& disk,
                                            const optimize::OptimizeReport& report);

// Returns the plan of a trim as JSON.
nlohmann::ordered_json free_space_json(const optimize::FreeSpacePlan& plan);

}  // namespace vc::tool
