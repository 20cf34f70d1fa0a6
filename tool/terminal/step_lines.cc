#include "tool/terminal/step_lines.h"

#include <fmt/format.h>

#include "base/printable.h"

namespace vc::tool {

namespace {

bool wants_lines(const Manner& manner) {
  using Progress = Manner::Progress;
  return !manner.quiet &&
         (manner.progress == Progress::kAuto || manner.progress == Progress::kNone);
}

// Disables the automatic bar, which would disturb the lines.
Manner only_if_asked_for(Manner manner) {
  if (manner.progress == Manner::Progress::kAuto) manner.progress = Manner::Progress::kNone;
  return manner;
}

}  // namespace

StepLines::StepLines(const Console& console, bool output_taken)
    : console_(console),
      output_taken_(output_taken),
      lines_(wants_lines(console.manner())),
      display_(only_if_asked_for(console.manner())) {
  display_.begin(Phase::kTrim);
}

void StepLines::step(const std::string& what) {
  if (!lines_) return;
  const std::chrono::duration<double> since = std::chrono::steady_clock::now() - start_;
  const std::string line = fmt::format("[{:6.1f}] {}\n", since.count(), printable(what));
  // An output error does not stop the work; the final report will fail.
  if (output_taken_)
    console_.tell(line);
  else
    (void)console_.print(line);
}

void StepLines::warning(const std::string& what) {
  console_.warning(what);
}

void StepLines::progress(uint64_t done, uint64_t total) {
  display_.update(done, total);
}

}  // namespace vc::tool
