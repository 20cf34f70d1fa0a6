// The output of `virt-compact tune`. Each report ends with a newline or is empty.
#pragma once

#include <string>
#include <vector>

#include "appliance/trim_timer.h"
#include "libvirt/tuning.h"

namespace vc::tool {

// The result, or predicted result, of tuning a definition.
struct TuneResult {
  std::string name;
  libvirt::Tuning tuning;
  std::string diff;
  bool applied = false;  // the definition was written
  bool running = false;  // the domain runs: takes effect at the next start
  // Remarks, one line each.
  std::vector<std::string> notes;
};

// Returns a line or two for each disk. `verbose`: includes disks of types that are skipped.
std::string tune_report(const TuneResult& result, bool verbose);
std::string tune_report_json(const TuneResult& result);

// Return the state of a guest's timer after the change, or the predicted state.
std::string timer_report(const std::vector<appliance::TimerReport>& reports, bool applied);
std::string timer_report_json(const std::vector<appliance::TimerReport>& reports, bool applied);

}  // namespace vc::tool
