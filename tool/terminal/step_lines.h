// What an appliance is at, as the virt-* tools tell it: a line for each step, with the seconds
// since the start.
#pragma once

#include <chrono>
#include <string>

#include "appliance/observer.h"
#include "tool/terminal/console.h"
#include "tool/terminal/progress_display.h"

namespace tool {

//   [   0.0] Opening disk.qcow2
//
// On standard output, or on standard error if that is for something else; not when quiet.  Where
// the user asked for progress of a certain form (-p), there is that in place of the lines.
class StepLines final : public appliance::Observer {
 public:
  // `output_taken`: standard output is for a report in JSON.
  StepLines(const Console& console, bool output_taken);

  void step(const std::string& what) override;
  void warning(const std::string& what) override;
  void progress(uint64_t done, uint64_t total) override;

  // Takes progress away.  After this standard error is free for other text.
  void finish() { display_.finish(); }

 private:
  const Console& console_;
  const bool output_taken_;
  const bool lines_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  ProgressDisplay display_;
};

}  // namespace tool
