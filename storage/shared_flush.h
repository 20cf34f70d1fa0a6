// Callers that request a flush while another flush runs share the next one.
//
//     A  flush ………………………|
//    B      asks ……………|  flush ……………|      one flush for B and C: it includes all that they
//    C          asks ……|  (B's) ……………|      wrote before they asked
#pragma once

#include <cerrno>
#include <memory>
#include <new>

#include "base/mutex.h"
#include "base/result.h"

namespace vc {

// Thread-safe.
class SharedFlush {
 public:
  // Returns the result of a `flush ()` that began after this call began.  One flush runs at a time.
  template <typename Flush>
  Result<void> run(Flush flush) {
    MutexLock lock(mutex_);
    if (!next_) next_ = std::make_shared<Round>();
    const std::shared_ptr<Round> mine = next_;
    while (!mine->done && running_) flushed_.wait(lock);
    if (mine->done) return mine->result;
    // Later callers are too late for this flush.
    next_.reset();
    running_ = true;
    lock.unlock();
    Result<void> result;
    try {
      result = flush();
    } catch (const std::bad_alloc&) {
      result = fail(Error::system(ENOMEM, "flush"));
    }
    lock.lock();
    mine->result = result;
    mine->done = true;
    running_ = false;
    flushed_.notify_all();
    return result;
  }

 private:
  // The flush's mutex guards its members.
  struct Round {
    bool done = false;
    Result<void> result;
  };

  Mutex mutex_;
  ConditionVariable flushed_;
  std::shared_ptr<Round> next_ GUARDED_BY(mutex_);  // the round that has not started
  bool running_ GUARDED_BY(mutex_) = false;
};

}  // namespace vc
