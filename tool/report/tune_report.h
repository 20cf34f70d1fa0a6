// What `virt-compact tune` prints.  Each ends with a newline, or is empty.
#pragma once

#include <string>
#include <vector>

#include "appliance/trim_timer.h"
#include "libvirt/tuning.h"

namespace tool {

// What became, or would become, of the definition.
struct TuneResult {
  std::string name;
  tune::Tuning tuning;
  std::string diff;
  bool applied = false;  // it was written
  bool running = false;  // and is used from the next start on
  // Things to know, one line each.
  std::vector<std::string> notes;
};

// A line or two for each disk.  `verbose`: also for those that are left alone for their kind.
std::string tune_report(const TuneResult& result, bool verbose);
std::string tune_report_json(const TuneResult& result);

// What became of a guest's timer, or would.
std::string timer_report(const std::vector<appliance::TimerReport>& reports, bool applied);
std::string timer_report_json(const std::vector<appliance::TimerReport>& reports, bool applied);

}  // namespace tool
