#include "tool/terminal/progress_painter.h"

#include <algorithm>

namespace vc::tool {

namespace {

// Seconds between JSON objects, or between figures without a total.
constexpr double kInterval = 0.25;
// Step of figures that go to a file or a program, as in qemu-img.
constexpr double kPercentStep = 1;

}  // namespace

ProgressState ProgressPainter::take(double seconds, const Figures& figures) {
  if (in_phase_)
    rate_.sample(seconds, figures.done);
  else
    rate_.start(seconds, figures.done);
  in_phase_ = true;
  ProgressState state;
  state.phase = figures.phase;
  state.done = figures.done;
  state.total = figures.total;
  state.rate = rate_.bytes_per_second();
  return state;
}

void ProgressPainter::paint(double seconds, const Figures& figures) {
  const ProgressState state = take(seconds, figures);
  if (seconds < patience_) return;
  if (form_ == Form::kBar) return draw_bar(state);
  const bool complete = state.complete();
  bool due = !shown_ || (complete && !shown_complete_);
  if (form_ == Form::kPercent && state.percent())
    due = due || *state.percent() >= shown_percent_ + kPercentStep;
  else
    due = due || (!shown_complete_ && seconds >= shown_at_ + kInterval);
  if (due) show(seconds, state);
}

void ProgressPainter::end_phase(double seconds, const Figures& figures) {
  const ProgressState state = take(seconds, figures);
  if (form_ != Form::kBar) {
    if (!shown_complete_) show(seconds, state);
    if (line_open_) screen_.write("\n");
  }
  line_open_ = false;
  in_phase_ = false;
  shown_ = false;
  shown_complete_ = false;
  shown_percent_ = 0;
}

void ProgressPainter::show(double seconds, const ProgressState& state) {
  shown_ = true;
  shown_at_ = seconds;
  shown_percent_ = state.percent().value_or(0);
  shown_complete_ = state.complete();
  line_open_ = form_ == Form::kPercent;
  screen_.write(form_ == Form::kJson ? json_line(state) + '\n' : percent_line(state) + '\r');
}

void ProgressPainter::draw_bar(const ProgressState& state) {
  // Leaves the last column empty: some terminals wrap the line there.
  const unsigned columns = std::max(screen_.columns(), 1u) - 1;
  std::string line = bar_line(state, columns);
  const size_t drawn = line.size();
  // Overwrites the rest of the previous line, but never more than the terminal is wide.
  line.resize(std::max<size_t>(drawn, std::min<size_t>(drawn_columns_, columns)), ' ');
  drawn_columns_ = drawn;
  // Leaves the cursor at the start, so that the next bar overwrites the ^C that a terminal echoes.
  screen_.write('\r' + line + '\r');
}

void ProgressPainter::clear() {
  if (drawn_columns_ > 0) screen_.write('\r' + std::string(drawn_columns_, ' ') + '\r');
  if (line_open_) screen_.write("\n");
  drawn_columns_ = 0;
  line_open_ = false;
}

}  // namespace vc::tool
