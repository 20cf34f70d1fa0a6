// Cancels a command at a time of the clock.
#pragma once

#include <signal.h>
#include <time.h>

#include <memory>

#include "base/cancel.h"
#include "base/result.h"

namespace vc::tool {

// While the object lives, it requests `cancel` at a time. At most one object may exist in a
// process. Uses a signal instead of a thread, since a process with threads must not fork.
class StopAt {
 public:
  // `cancel` must outlive the object.
  static Result<std::unique_ptr<StopAt>> start(Cancel& cancel, time_t when);
  StopAt(const StopAt&) = delete;
  StopAt& operator=(const StopAt&) = delete;
  ~StopAt();

 private:
  StopAt() = default;

  timer_t timer_{};
  bool has_timer_ = false;
  struct sigaction previous_ {};
};

}  // namespace vc::tool
