#include "live/run_meter.h"

#include <algorithm>

namespace vc::live {

namespace {

using Clock = std::chrono::steady_clock;

std::optional<Seconds> mean(uint64_t nanoseconds, uint64_t requests) {
  if (requests == 0) return std::nullopt;
  return Seconds(static_cast<double>(nanoseconds) / 1e9 / static_cast<double>(requests));
}

}  // namespace

void RunMeter::begin_step(const std::string& name, const std::string& line) {
  end_step();
  report_.steps.push_back({name, {}});
  step_start_ = Clock::now();
  observer_.step(line);
}

void RunMeter::end_step() {
  if (!report_.steps.empty() && report_.steps.back().elapsed.count() == 0)
    report_.steps.back().elapsed = Clock::now() - step_start_;
}

void RunMeter::count_pause(Seconds pause) {
  ++report_.waits.pauses;
  report_.waits.longest_pause = std::max(report_.waits.longest_pause, pause);
}

void RunMeter::count_requests(const Result<libvirt::LiveDomain::Requests>& now) {
  if (!now) return;
  Waits& waits = report_.waits;
  if (!at_start_) {
    at_start_ = *now;
    waits.write_before = mean(now->write_nanoseconds, now->writes);
    waits.flush_before = mean(now->flush_nanoseconds, now->flushes);
    return;
  }
  waits.write_during =
      mean(now->write_nanoseconds - at_start_->write_nanoseconds, now->writes - at_start_->writes);
  waits.flush_during = mean(now->flush_nanoseconds - at_start_->flush_nanoseconds,
                            now->flushes - at_start_->flushes);
}

}  // namespace vc::live
