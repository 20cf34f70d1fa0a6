// Limits the read rate of a copy.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/mutex.h"
#include "base/stop.h"

namespace vc {

// Each reader reserves bytes before it reads them, and waits until they are available.  Bytes
// become available at a constant rate.  Unused bytes are kept for at most 0.1 seconds, so that a
// copy that had to wait for its destination does not catch up in a burst.
//
// Thread-safe.  Serves callers in the order of the calls.  No caller holds a lock while it waits.
class RateLimit {
 public:
  // The source of the time; tests replace it.
  class Clock {
   public:
    using Time = std::chrono::steady_clock::time_point;
    virtual ~Clock() = default;
    virtual Time now() = 0;
    virtual void sleep_until(Time time) = 0;
  };

  // A rate of 0 means no limit.  If `clock` is nullptr, uses the real clock; else `clock` must
  // outlive the limit.
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
  Mutex mutex_;
  Clock::Time taken_until_ GUARDED_BY(mutex_);  // all bytes up to this time are reserved
};

}  // namespace vc
