// Shows progress on standard error while a job runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/progress.h"
#include "tool/terminal/console.h"
#include "tool/terminal/progress_painter.h"

namespace vc::tool {

// Returns how to show progress, nullopt for none. `terminal`: standard error is a terminal.
std::optional<ProgressPainter::Form> progress_form(const Manner& manner, bool terminal);

class ProgressDisplay final : public Progress {
 public:
  explicit ProgressDisplay(const Manner& manner);
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;
  ~ProgressDisplay() override { finish(); }

  void begin(Phase phase) override;
  void update(uint64_t done, uint64_t total) override;

  // Removes the bar, or ends the line of figures. Afterwards, standard error is free for other
  // text. May be called repeatedly.
  void finish();

 private:
  class StandardError final : public ProgressPainter::Screen {
   public:
    unsigned columns() override;
    void write(const std::string& text) override;
  };
  using Figures = ProgressPainter::Figures;

  void run();
  void paint();
  double seconds() const;

  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  StandardError screen_;
  // used by thread_, and by finish() after thread_ has ended
  std::optional<ProgressPainter> painter_;

  Mutex mutex_;
  ConditionVariable wake_;
  Figures figures_ GUARDED_BY(mutex_);
  bool begun_ GUARDED_BY(mutex_) = false;  // the current phase has figures
  // phases that ended and were not painted since
  std::vector<Figures> ended_ GUARDED_BY(mutex_);
  bool finished_ GUARDED_BY(mutex_) = false;

  std::thread thread_;
};

}  // namespace vc::tool
