// Announces the steps of the run for one disk, and measures them.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "appliance/observer.h"
#include "base/result.h"
#include "libvirt/live_domain.h"
#include "live/report.h"

namespace vc::live {

class RunMeter {
 public:
  // Both must outlive the object.
  RunMeter(appliance::Observer& observer, LiveDiskReport& report)
      : observer_(observer), report_(report) {}

  // `name` is for the report, `line` for the user.
  void begin_step(const std::string& name, const std::string& line);
  void end_step();
  void count_pause(Seconds pause);
  // Reads the guest's requests to the disk since its start: first before the run, then after it.
  void count_requests(const Result<libvirt::LiveDomain::Requests>& now);

 private:
  appliance::Observer& observer_;
  LiveDiskReport& report_;
  std::optional<libvirt::LiveDomain::Requests> at_start_;
  std::chrono::steady_clock::time_point step_start_{};
};

}  // namespace vc::live
