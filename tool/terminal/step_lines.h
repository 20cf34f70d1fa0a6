// The steps of an appliance, as virt-* tools show them: one line per step, with the seconds since
// the start.
#pragma once

#include <chrono>
#include <string>

#include "appliance/observer.h"
#include "tool/terminal/console.h"
#include "tool/terminal/progress_display.h"

namespace vc::tool {

// Prints lines such as
//
//   [   0.0] Opening disk.qcow2
//
// on standard output, or on standard error if standard output is in use. Prints nothing when quiet.
// If the user chose a form of progress (-p), shows progress instead of the lines.
class StepLines final : public appliance::Observer {
 public:
  // `output_taken`: standard output is reserved for a JSON report.
  StepLines(const Console& console, bool output_taken);

  void step(const std::string& what) override;
  void warning(const std::string& what) override;
  void progress(uint64_t done, uint64_t total) override;

  // Removes the progress display. Afterwards, standard error is free for other text.
  void finish() { display_.finish(); }

 private:
  const Console& console_;
  const bool output_taken_;
  const bool lines_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  ProgressDisplay display_;
};

}  // namespace vc::tool
