// Which request comes next, for all who send some.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "base/result.h"
#include "bench/load.h"

namespace bench {

// Thread-safe.
class Schedule {
 public:
  using Clock = std::chrono::steady_clock;

  // Of a load on a disk of `size` bytes; an error if not one request fits.
  static qcow2::Result<void> check(const Load& load, uint64_t size);
  // check () was content with both.
  Schedule(const Load& load, uint64_t size);

  struct Turn {
    enum class Kind {
      kRequest,  // read or write `at`, then call done ()
      kFlush,    // flush, then call flushed ()
      kWait,     // something must end first
      kEnd,      // that was all
    } kind;
    uint64_t at = 0;  // bytes
  };

  // The clock runs from now on.
  void start();
  Clock::time_point begin() const { return begin_; }
  Turn take();
  void done();
  void flushed();
  // Nothing more is given out.
  void end();
  // Until there may be something other than kWait, but for no more than some milliseconds.
  void wait();

  // Requests that were given out.
  uint64_t issued() const;

 private:
  uint64_t next_place();
  bool flush_is_due() const;

  const Load load_;
  const uint64_t size_;  // of the disk, or of the part that is touched, bytes
  Clock::time_point begin_;

  mutable std::mutex mutex_;
  // All guarded by mutex_.
  std::condition_variable changed_;
  uint64_t next_;    // of a sequential load, bytes
  uint64_t random_;  // state of the generator
  uint64_t issued_ = 0;
  uint64_t in_flight_ = 0;
  uint64_t flushed_at_ = 0;  // `issued_` when the last flush was given out
  bool flushing_ = false;
  bool ended_ = false;
};

}  // namespace bench
