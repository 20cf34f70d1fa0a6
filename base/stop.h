// Ends a pipeline early: stores the first error and tells all threads.
#pragma once

#include <atomic>
#include <optional>
#include <utility>

#include "base/cancel.h"
#include "base/mutex.h"
#include "base/result.h"

namespace vc {

class Stop {
 public:
  explicit Stop(const Cancel& cancel) : cancel_(cancel) {}

  // Returns whether a thread has failed or the user has cancelled.
  bool requested() const noexcept {
    return failed_.load(std::memory_order_relaxed) || cancel_.requested();
  }

  void fail(Error error) {
    const MutexLock lock(mutex_);
    if (!error_) error_ = std::move(error);
    failed_.store(true, std::memory_order_relaxed);
  }

  // Returns the first error, or the cancellation.  Call after all threads have ended.
  Result<void> result() {
    const MutexLock lock(mutex_);
    if (error_) return vc::fail(*error_);
    if (cancel_.requested()) return vc::fail(Error::cancelled());
    return {};
  }

 private:
  const Cancel& cancel_;
  std::atomic<bool> failed_{false};
  Mutex mutex_;
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

}  // namespace vc
