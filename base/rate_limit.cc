#include "base/rate_limit.h"

#include <algorithm>
#include <thread>

#include "base/poll_interval.h"

namespace vc {

namespace {

using std::chrono::duration;
using std::chrono::duration_cast;
using std::chrono::nanoseconds;

// How long unused bytes are kept.
constexpr std::chrono::milliseconds kKept{100};
// The longest wait.  Prevents an overflow of the time.
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

// Reserves the bytes after all earlier reservations.  Returns the time at which they are available.
RateLimit::Clock::Time RateLimit::reserve(uint64_t bytes) {
  const duration<double> needed(
      std::min(static_cast<double>(bytes) / static_cast<double>(rate_), kLongest));
  const MutexLock lock(mutex_);
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
    clock_.sleep_until(std::min<Clock::Time>(time, now + kPollInterval));
  }
}

}  // namespace vc
