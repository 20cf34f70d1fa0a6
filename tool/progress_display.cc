#include "tool/progress_display.h"

#include <unistd.h>

#include <algorithm>
#include <string>

namespace tool {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kInterval(100);
// Nobody needs a bar for a shorter job.
constexpr milliseconds kPatience(1000);
// Figures that go to a file or a program come at this step, as qemu-img's do.
constexpr double kPercentStep = 1;

}  // namespace

ProgressDisplay::ProgressDisplay(const Manner& manner) {
  const bool terminal = is_terminal(STDERR_FILENO);
  switch (manner.progress) {
    case Manner::Progress::kAuto:
      if (terminal && !manner.quiet) form_ = Form::kBar;
      delay_ = kPatience;
      break;
    case Manner::Progress::kBar:
      form_ = terminal ? Form::kBar : Form::kPercent;
      break;
    case Manner::Progress::kJson:
      form_ = Form::kJson;
      break;
    case Manner::Progress::kNone:
      break;
  }
  if (form_ != Form::kNone) thread_ = std::thread([this] { run(); });
}

void ProgressDisplay::update(uint64_t done, uint64_t total) {
  total_.store(total, std::memory_order_relaxed);
  done_.store(done, std::memory_order_relaxed);
}

void ProgressDisplay::run() {
  std::unique_lock lock(mutex_);
  const auto finished = [this] { return finished_; };
  if (wake_.wait_for(lock, delay_, finished)) return;
  do {
    draw(state(steady_clock::now()));
  } while (!wake_.wait_for(lock, kInterval, finished));
}

ProgressState ProgressDisplay::state(steady_clock::time_point now) {
  ProgressState state;
  state.done = done_.load(std::memory_order_relaxed);
  state.total = total_.load(std::memory_order_relaxed);
  rate_.sample(std::chrono::duration<double>(now - start_).count(), state.done);
  state.rate = rate_.bytes_per_second();
  return state;
}

void ProgressDisplay::draw(const ProgressState& state) {
  if (state.total == 0) return;  // the job has not begun
  if (form_ == Form::kBar) {
    // The last column stays empty: some terminals break the line there.
    const unsigned room = terminal_columns(STDERR_FILENO) - 1;
    std::string line = bar_line(state, room);
    const size_t columns = line.size();
    // Over what is left of the line before, as far as the terminal is still as wide.
    line.resize(std::max<size_t>(columns, std::min<size_t>(drawn_columns_, room)), ' ');
    drawn_columns_ = columns;
    // The cursor rests at the beginning, so that the ^C that a terminal echoes is drawn over.
    (void)write_all(STDERR_FILENO, '\r' + line + '\r');
    return;
  }
  const double percent = state.percent();
  if (percent < drawn_percent_ + kPercentStep && (percent < 100 || drawn_percent_ >= 100)) return;
  drawn_percent_ = percent;
  (void)write_all(STDERR_FILENO,
                  form_ == Form::kJson ? json_line(state) + '\n' : percent_line(state) + '\r');
}

void ProgressDisplay::finish() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }
  wake_.notify_one();
  thread_.join();
  if (form_ == Form::kBar) {
    if (drawn_columns_ > 0)
      (void)write_all(STDERR_FILENO, '\r' + std::string(drawn_columns_, ' ') + '\r');
    return;
  }
  draw(state(steady_clock::now()));
  if (form_ == Form::kPercent && drawn_percent_ >= 0) (void)write_all(STDERR_FILENO, "\n");
}

}  // namespace tool
