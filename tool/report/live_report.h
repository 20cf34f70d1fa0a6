// The report of optimize --live.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "live/report.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

// Returns the report of one disk as text. Ends with a newline.
std::string live_report(const live::LiveDiskReport& report, const Palette& palette);

// Returns the error of a disk whose run was undone or has failed, and the state of the disk.
std::string live_error(const live::LiveDiskReport& report);

// Returns the report as JSON, sizes in bytes, times in seconds.
nlohmann::ordered_json live_report_json(const live::LiveDiskReport& report);

}  // namespace vc::tool
