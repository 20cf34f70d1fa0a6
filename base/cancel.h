// A cancellation request.  A signal handler or the first failing part of a pipeline sets it, once.
#pragma once

#include <atomic>

namespace vc {

// Lock-free, so that a signal handler may set it.
class Cancel {
 public:
  void request() noexcept { requested_.store(true, std::memory_order_relaxed); }
  bool requested() const noexcept { return requested_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> requested_{false};
  static_assert(std::atomic<bool>::is_always_lock_free);
};

}  // namespace vc
