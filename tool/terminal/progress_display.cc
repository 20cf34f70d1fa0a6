#include "tool/terminal/progress_display.h"

#include <unistd.h>

#include <string>
#include <utility>

namespace vc::tool {

namespace {

constexpr std::chrono::milliseconds kInterval(100);
// A shorter job needs no bar; seconds.
constexpr double kPatience = 1;

}  // namespace

std::optional<ProgressPainter::Form> progress_form(const Manner& manner, bool terminal) {
  using Form = ProgressPainter::Form;
  switch (manner.progress) {
    case Manner::Progress::kAuto:
      return terminal && !manner.quiet ? std::optional(Form::kBar) : std::nullopt;
    case Manner::Progress::kBar:
      return terminal ? Form::kBar : Form::kPercent;
    case Manner::Progress::kJson:
      return Form::kJson;
    case Manner::Progress::kNone:
      break;
  }
  return std::nullopt;
}

unsigned ProgressDisplay::StandardError::columns() {
  return terminal_columns(STDERR_FILENO);
}

void ProgressDisplay::StandardError::write(const std::string& text) {
  // Errors of standard error cannot be reported.
  (void)write_all(STDERR_FILENO, text);
}

ProgressDisplay::ProgressDisplay(const Manner& manner) {
  const auto form = progress_form(manner, is_terminal(STDERR_FILENO));
  if (!form) return;
  painter_.emplace(*form, screen_, manner.progress == Manner::Progress::kAuto ? kPatience : 0);
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error&) {
    painter_.reset();  // the job matters more than its progress
  }
}

void ProgressDisplay::begin(Phase phase) {
  const MutexLock lock(mutex_);
  if (begun_) ended_.push_back(figures_);
  figures_ = {};
  figures_.phase = phase;
  begun_ = false;
}

void ProgressDisplay::update(uint64_t done, uint64_t total) {
  const MutexLock lock(mutex_);
  figures_.done = done;
  figures_.total = total == kUnknown ? std::nullopt : std::optional(total);
  begun_ = true;
}

double ProgressDisplay::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void ProgressDisplay::paint() {
  std::vector<Figures> ended;
  Figures figures;
  bool begun = false;
  {
    const MutexLock lock(mutex_);
    ended = std::exchange(ended_, {});
    figures = figures_;
    begun = begun_;
  }
  for (const Figures& it : ended) painter_->end_phase(seconds(), it);
  if (begun) painter_->paint(seconds(), figures);
}

void ProgressDisplay::run() {
  MutexLock lock(mutex_);
  while (!finished_) {
    wake_.wait_for(lock, kInterval);
    if (finished_) break;
    lock.unlock();
    paint();
    lock.lock();
  }
}

void ProgressDisplay::finish() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    finished_ = true;
    if (begun_) ended_.push_back(figures_);
    begun_ = false;
  }
  wake_.notify_one();
  thread_.join();
  paint();
  painter_->clear();
}

}  // namespace vc::tool
