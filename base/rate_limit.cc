#include "base/rate_limit.h"

#include <algorithm>
#include <thread>

namespace copy {

namespace {

using std::chrono::duration;
using std::chrono::duration_cast;
using std::chrono::nanoseconds;

// What nobody took is kept for this long.
constexpr std::chrono::milliseconds kKept{100};
// A stop may come from a signal handler, which can wake nobody: those who wait look for it.
constexpr std::chrono::milliseconds kLook{20};
// No wait is longer.  Far from where adding to the time overflows.
constexpr double kLongest = 365 * 86400.0;  // seconds

class RealClock final : public RateLimit::Clock {
 public:
  Time now() override { return std::chrono::steady_clock::now(); }
  void sleep_until(Time time) override { std::this_thread::sleep_until(time); }
};

RateLimit::Clock& real_clock() {
  static RealClock clock;
  return clock;
}

}  // namespace

RateLimit::RateLimit(uint64_t bytes_per_second, Clock* clock)
    : rate_(bytes_per_second),
      clock_(clock != nullptr ? *clock : real_clock()),
      taken_until_(clock_.now()) {}

// Takes the bytes from the time that follows what is taken already, and says when they are there.
RateLimit::Clock::Time RateLimit::reserve(uint64_t bytes) {
  const duration<double> needed(
      std::min(static_cast<double>(bytes) / static_cast<double>(rate_), kLongest));
  const std::lock_guard lock(mutex_);
  const auto now = clock_.now();
  taken_until_ = std::clamp(taken_until_, now - kKept,
                            now + duration_cast<nanoseconds>(duration<double>(kLongest)));
  taken_until_ += duration_cast<nanoseconds>(needed);
  return taken_until_;
}

void RateLimit::wait_for(uint64_t bytes, const Stop& stop) {
  const auto time = reserve(bytes);
  while (!stop.requested()) {
    const auto now = clock_.now();
    if (now >= time) return;
    clock_.sleep_until(std::min<Clock::Time>(time, now + kLook));
  }
}

}  // namespace copy
