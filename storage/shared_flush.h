// Those who ask for a flush while one is under way share the next one.
//
//     A  flush ………………………|
//     B      asks ……………|  flush ……………|      one flush for B and C: all that they had
//     C          asks ……|  (B's) ……………|      written before they asked is in it
#pragma once

#include <cerrno>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>

#include "base/result.h"

namespace qcow2 {

// Thread-safe.
class SharedFlush {
 public:
  // Returns what a `flush ()` returned that began after this call did.  One runs at a time.
  template <typename Flush>
  Result<void> run(Flush flush) {
    std::unique_lock lock(mutex_);
    if (!next_) next_ = std::make_shared<Round>();
    const std::shared_ptr<Round> mine = next_;
    flushed_.wait(lock, [&] { return mine->done || !running_; });
    if (mine->done) return mine->result;
    // Whoever comes now is too late for this one.
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
  struct Round {
    bool done = false;
    Result<void> result;
  };

  std::mutex mutex_;
  std::condition_variable flushed_;
  std::shared_ptr<Round> next_;  // guarded by mutex_: the one that has not begun
  bool running_ = false;         // guarded by mutex_
};

}  // namespace qcow2
