#include "tool/terminal/stop_at.h"

#include <atomic>
#include <cerrno>

namespace vc::tool {

namespace {

std::atomic<Cancel*> cancel_at_time{nullptr};

static_assert(std::atomic<Cancel*>::is_always_lock_free);

// Must be async-signal-safe.
void on_alarm(int /*signal*/) {
  if (Cancel* const cancel = cancel_at_time.load()) cancel->request();
}

}  // namespace

Result<std::unique_ptr<StopAt>> StopAt::start(Cancel& cancel, time_t when) {
  std::unique_ptr<StopAt> stop(new StopAt);
  cancel_at_time.store(&cancel);
  struct sigaction action {};
  action.sa_handler = on_alarm;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGALRM, &action, &stop->previous_);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGALRM;
  // An absolute time of this clock follows when the clock is set.
  if (::timer_create(CLOCK_REALTIME, &event, &stop->timer_) != 0)
    return fail(Error::system(errno, "a timer for the end of the time window"));
  stop->has_timer_ = true;
  itimerspec at{};
  at.it_value.tv_sec = when;
  if (::timer_settime(stop->timer_, TIMER_ABSTIME, &at, nullptr) != 0)
    return fail(Error::system(errno, "a timer for the end of the time window"));
  return stop;
}

StopAt::~StopAt() {
  if (has_timer_) ::timer_delete(timer_);
  ::sigaction(SIGALRM, &previous_, nullptr);
  cancel_at_time.store(nullptr);
}

}  // namespace vc::tool
