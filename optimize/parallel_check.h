// Runs a check in a thread of its own, and stops other work when the check fails.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "base/cancel.h"
#include "base/mutex.h"
#include "base/result.h"

namespace vc::optimize {

class ParallelCheck {
 public:
  // Starts `check`, which must return early with an error when `cancel` is requested. `cancel` must
  // outlive the object.
  ParallelCheck(std::function<Result<void>()> check, const Cancel& cancel);
  ParallelCheck(const ParallelCheck&) = delete;
  ParallelCheck& operator=(const ParallelCheck&) = delete;
  // Waits for the check.
  ~ParallelCheck();

  // Cancel object for the work: requested when the check fails, or when the user cancels. The work
  // may request it as well. The work must end before this object does.
  Cancel& work_cancel() { return work_cancel_; }
  // Waits for the check, and returns its result. The work may continue.
  Result<void> wait();
  // Returns the time that the check took. Valid after wait().
  std::chrono::duration<double> elapsed() const {
    const MutexLock lock(mutex_);
    return elapsed_;
  }

 private:
  void run();

  const std::function<Result<void>()> check_;
  const Cancel& cancel_;
  Cancel work_cancel_;
  mutable Mutex mutex_;
  ConditionVariable changed_;
  std::optional<Result<void>> result_ GUARDED_BY(mutex_);
  std::chrono::duration<double> elapsed_ GUARDED_BY(mutex_){};
  bool work_done_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace vc::optimize
