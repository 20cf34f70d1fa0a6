// The parts of optimize and rollback that are about guests that run.
#pragma once

#include <string>

#include "base/result.h"
#include "live/options.h"
#include "tool/metrics/metrics.h"
#include "tool/terminal/console.h"

namespace vc::tool {

// Runs optimize --live, and prints the report. Returns the exit code.
Result<int> run_live(const Console& console, const live::LiveOptions& options, bool json,
                     Metrics& metrics);

// The end to which a run that was stopped is brought.
enum class LiveEnd { kForward, kBack };

// Completes or undoes a run that was stopped, and prints the report. Returns the exit code.
Result<int> complete_live(const Console& console, const std::string& disk,
                          const live::LiveOptions& options, bool json, LiveEnd end,
                          Metrics& metrics);

// Returns true if a run for this disk was stopped, or is under way.
bool is_stopped_live_run(const std::string& disk);
// Returns an error with advice in that case: the file may not have the current content of the disk.
Result<void> refuse_stopped_live_run(const std::string& disk);

}  // namespace vc::tool
