// A night: optimizes the disks of a policy, one after the other.
#pragma once

#include "tool/metrics/metrics.h"
#include "tool/nightly/nightly_report.h"
#include "tool/nightly/policy.h"
#include "tool/terminal/console.h"

namespace vc::tool {

struct NightlyOptions {
  bool dry_run = false;  // change nothing, also not in the state folder
  bool now = false;      // regardless of the time window, and of the days since the last run
  bool json = false;     // standard output is reserved for the report
};

// Runs a night, and returns its report. A disk that fails does not stop the others. A signal, or
// the end of the time window, stops the run at a point where each disk is sound. Returns an error
// if nothing can be done, such as when another run is under way.
//
// Call this before the process has threads or connections to libvirt.
Result<NightlyReport> run_night(const Policy& policy, const NightlyOptions& options,
                                const Console& console, Metrics& metrics);

}  // namespace vc::tool
