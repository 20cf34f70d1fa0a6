// Shows a run of several steps.
#pragma once

#include <memory>
#include <string>

#include "appliance/observer.h"
#include "base/progress.h"
#include "tool/terminal/progress_display.h"
#include "tool/terminal/step_lines.h"

namespace vc::tool {

// Prints lines for the steps, and shows a bar while a copy runs.
class StepDisplay final : public appliance::Observer, public Progress {
 public:
  StepDisplay(const Console& console, bool output_taken)
      : console_(console), lines_(console, output_taken) {}

  void step(const std::string& what) override {
    bar_.reset();
    lines_.step(what);
  }
  void warning(const std::string& what) override {
    bar_.reset();
    lines_.warning(what);
  }
  void progress(uint64_t done, uint64_t total) override { lines_.progress(done, total); }

  void begin(Phase phase) override {
    make_bar();
    bar_->begin(phase);
  }
  void update(uint64_t done, uint64_t total) override {
    make_bar();
    bar_->update(done, total);
  }

  void finish() {
    bar_.reset();
    lines_.finish();
  }

 private:
  void make_bar() {
    if (!bar_) bar_ = std::make_unique<ProgressDisplay>(console_.manner());
  }

  const Console& console_;
  StepLines lines_;
  std::unique_ptr<ProgressDisplay> bar_;
};

}  // namespace vc::tool
