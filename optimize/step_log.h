// Records the steps of a run.
#pragma once

#include <chrono>
#include <string>

#include "appliance/observer.h"
#include "optimize/report.h"

namespace vc::optimize {

// Stores the steps in a report. Not thread-safe.
class StepLog {
 public:
  // Both must outlive the object.
  StepLog(OptimizeReport& report, appliance::Observer& observer)
      : report_(report), observer_(observer) {}

  // Ends the current step, begins the step `name`, and tells the observer `line`.
  void begin(const std::string& name, const std::string& line) {
    end();
    report_.steps.push_back({name, {}});
    start_ = Clock::now();
    observer_.step(line);
  }
  // Ends the current step, if there is one.
  void end() {
    if (!report_.steps.empty()) report_.steps.back().elapsed = Clock::now() - start_;
  }

 private:
  using Clock = std::chrono::steady_clock;

  OptimizeReport& report_;
  appliance::Observer& observer_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace vc::optimize
