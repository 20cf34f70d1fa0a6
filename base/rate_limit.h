// How fast a copy may read.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>

#include "base/stop.h"

namespace copy {

// Everybody who wants to read takes his bytes first, and waits until they are there.  They come at
// a steady rate; what nobody takes is kept for a tenth of a second at most, so that a copy that was
// held up by its destination does not make up for it in a burst.
//
// Thread-safe.  Turns are given in the order of the calls, and nobody holds a lock while he waits.
class RateLimit {
 public:
  // The time, and how it passes.
  class Clock {
   public:
    using Time = std::chrono::steady_clock::time_point;
    virtual ~Clock() = default;
    virtual Time now() = 0;
    virtual void sleep_until(Time time) = 0;
  };

  // 0: no limit.  `clock`: nullptr is the real one; else it outlives the limit.
  explicit RateLimit(uint64_t bytes_per_second = 0, Clock* clock = nullptr);

  // Waits until `bytes` guest bytes may be read, or until `stop` is requested.
  void take(uint64_t bytes, const Stop& stop) {
    if (rate_ != 0) wait_for(bytes, stop);
  }

 private:
  Clock::Time reserve(uint64_t bytes);
  void wait_for(uint64_t bytes, const Stop& stop);

  const uint64_t rate_;  // bytes a second
  Clock& clock_;
  std::mutex mutex_;
  Clock::Time taken_until_;  // guarded by mutex_; what comes before is given away
};

}  // namespace copy
