// Decides the next request, for all sending threads.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/mutex.h"
#include "base/result.h"
#include "bench/load.h"

namespace vc::bench {

// Thread-safe.
class Schedule {
 public:
  using Clock = std::chrono::steady_clock;

  // Returns an error if not even one request of `load` fits on a disk of `size` bytes.
  static Result<void> check(const Load& load, uint64_t size);
  // check() must have accepted both.
  Schedule(const Load& load, uint64_t size);

  struct Turn {
    enum class Kind {
      kRequest,  // read or write `at`, then call done()
      kFlush,    // flush, then call flushed()
      kWait,     // another request must end first
      kEnd,      // no more requests
    } kind;
    uint64_t at = 0;  // bytes
  };

  // Starts the clock.
  void start();
  Clock::time_point begin() const { return begin_; }
  Turn take();
  void done();
  void flushed();
  // Ends the schedule: take() returns no more requests.
  void end();
  // Waits until take() may return something other than kWait, for at most a few milliseconds.
  void wait();

  // Returns the number of requests handed out.
  uint64_t issued() const;

 private:
  uint64_t next_place() REQUIRES(mutex_);
  bool flush_is_due() const REQUIRES(mutex_);

  const Load load_;
  const uint64_t size_;  // of the disk, or of its used part; bytes
  Clock::time_point begin_;

  mutable Mutex mutex_;
  ConditionVariable changed_;
  uint64_t next_ GUARDED_BY(mutex_);    // next offset of a sequential load, bytes
  uint64_t random_ GUARDED_BY(mutex_);  // state of the generator
  uint64_t issued_ GUARDED_BY(mutex_) = 0;
  uint64_t in_flight_ GUARDED_BY(mutex_) = 0;
  uint64_t flushed_at_ GUARDED_BY(mutex_) = 0;  // `issued_` at the last flush
  bool flushing_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;
};

}  // namespace vc::bench
