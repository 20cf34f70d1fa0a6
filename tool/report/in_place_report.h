// The report of optimize --in-place.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "optimize/in_place.h"

namespace vc::tool {

// Returns the report as text: that of compact, with what was trimmed. Ends with a newline.
std::string in_place_report(const std::string& disk, const optimize::InPlaceReport& report);

// Returns the report as JSON, sizes in bytes.
nlohmann::ordered_json in_place_report_json(const std::string& disk,
                                            const optimize::InPlaceReport& report);

}  // namespace vc::tool
