// Decides what of a job's progress is shown, and when.  Knows neither clock nor terminal.
#pragma once

#include <cstdint>
#include <string>

#include "tool/terminal/progress_bar.h"
#include "tool/terminal/rate_meter.h"

namespace tool {

class ProgressPainter {
 public:
  enum class Form {
    kBar,      // one line of a terminal, drawn over and over
    kPercent,  // figures as qemu-img's, separated by carriage returns
    kJson,     // objects, one a line
  };

  // Where it is shown.
  class Screen {
   public:
    virtual ~Screen() = default;
    virtual unsigned columns() = 0;
    virtual void write(const std::string& text) = 0;
  };

  // How far a phase is.
  struct Figures {
    copy::Phase phase = copy::Phase::kCopy;
    uint64_t done = 0;              // bytes
    std::optional<uint64_t> total;  // bytes; nothing: nobody knows
  };

  // `screen` outlives the painter.  `patience`: nothing is shown before, in seconds of the clock
  // that paint () goes by.
  ProgressPainter(Form form, Screen& screen, double patience)
      : form_(form), screen_(screen), patience_(patience) {}

  // To be called every tenth of a second or so, with the time since the start of the job: shows
  // what is worth showing.
  void paint(double seconds, const Figures& figures);
  // The last figures of a phase: what they say is said.
  void end_phase(double seconds, const Figures& figures);
  // Takes the bar away, or ends the line of figures.
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

  // What was shown last.
  bool shown_ = false;  // anything of the phase
  double shown_at_ = 0;
  double shown_percent_ = 0;
  bool shown_complete_ = false;
  bool line_open_ = false;    // kPercent: it has no end yet
  size_t drawn_columns_ = 0;  // kBar
};

}  // namespace tool
