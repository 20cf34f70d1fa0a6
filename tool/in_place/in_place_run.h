// The part of optimize that changes disks in place.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "optimize/in_place.h"
#include "tool/metrics/metrics.h"
#include "tool/terminal/console.h"

namespace vc::tool {

// Runs optimize --in-place on one disk after the other, and prints the reports. Returns the exit
// code. An error of one disk does not end the run; a stop does.
Result<int> run_in_place(const Console& console, const std::vector<std::string>& disks,
                         optimize::OptimizeOptions options, const qcow2::InPlaceOptions& levels,
                         bool json, Metrics& metrics);

}  // namespace vc::tool
