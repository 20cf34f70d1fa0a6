// Draws progress on standard error while a job runs.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "copy/progress.h"
#include "tool/console.h"
#include "tool/progress_bar.h"

namespace tool {

class ProgressDisplay final : public copy::Progress {
 public:
  explicit ProgressDisplay(const Manner& manner);
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;
  ~ProgressDisplay() override { finish(); }

  void update(uint64_t done, uint64_t total) override;

  // Takes the bar away, or ends the line of figures.  After this standard error is free for other
  // text.  May be called again.
  void finish();

 private:
  enum class Form { kNone, kBar, kPercent, kJson };

  void run();
  ProgressState state(std::chrono::steady_clock::time_point now);
  void draw(const ProgressState& state);

  Form form_ = Form::kNone;
  std::chrono::milliseconds delay_{0};  // before the first drawing
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();

  // Stored by the job one after the other and read by the thread: a drawing may show a `total_`
  // that is newer than `done_`.
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> total_{0};

  std::mutex mutex_;
  std::condition_variable wake_;
  bool finished_ = false;  // under mutex_
  std::thread thread_;

  // Of the drawing thread, and of finish () after it has ended.
  RateMeter rate_;
  size_t drawn_columns_ = 0;
  double drawn_percent_ = -1;
};

}  // namespace tool
