// Decides what progress to show, and when. Independent of clock and terminal.
#pragma once

#include <cstdint>
#include <string>

#include "tool/terminal/progress_bar.h"
#include "tool/terminal/rate_meter.h"

namespace vc::tool {

class ProgressPainter {
 public:
  enum class Form {
    kBar,      // one terminal line, redrawn
    kPercent,  // figures in qemu-img's form, separated by carriage returns
    kJson,     // JSON objects, one per line
  };

  // The output of a painter.
  class Screen {
   public:
    virtual ~Screen() = default;
    virtual unsigned columns() = 0;
    virtual void write(const std::string& text) = 0;
  };

  // The progress of a phase.
  struct Figures {
    Phase phase = Phase::kCopy;
    uint64_t done = 0;              // bytes
    std::optional<uint64_t> total;  // bytes; nullopt: unknown
  };

  // `screen` must outlive the painter. `patience`: seconds before anything is shown, on the clock
  // of paint().
  ProgressPainter(Form form, Screen& screen, double patience)
      : form_(form), screen_(screen), patience_(patience) {}

  // Shows what is worth showing. Must be called about every tenth of a second, with the seconds
  // since the start of the job.
  void paint(double seconds, const Figures& figures);
  // Shows the last figures of a phase.
  void end_phase(double seconds, const Figures& figures);
  // Removes the bar, or ends the line of figures.
  void clear();

 private:
  ProgressState take(double seconds, const Figures& figures);
  void show(double seconds, const ProgressState& state);
  void draw_bar(const ProgressState& state);

  const Form form_;
  Screen& screen_;
  const double patience_;

  bool in_phase_ = false;
  RateMeter rate_;  // of the phase

  // State of the last output.
  bool shown_ = false;  // something of this phase
  double shown_at_ = 0;
  double shown_percent_ = 0;
  bool shown_complete_ = false;
  bool line_open_ = false;    // kPercent: the line has no newline yet
  size_t drawn_columns_ = 0;  // kBar
};

}  // namespace vc::tool
