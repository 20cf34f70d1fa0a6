// Exclusive locks on ranges of guest clusters.
//
// A change of a cluster's mapping holds the lock from the read of the old mapping until the new one
// is in the map.  So two writes to one unallocated cluster run one after the other, and the second
// finds it allocated.  Reads, and writes to allocated clusters, need no lock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>

#include "base/mutex.h"
#include "storage/offset.h"

namespace vc::qcow2 {

class GuestLocks {
 public:
  class Guard {
   public:
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    ~Guard() { locks_.release(range_); }

   private:
    friend class GuestLocks;
    struct Range {
      ClusterIndex begin;
      ClusterIndex end;
    };
    Guard(GuestLocks& locks, std::list<Range>::iterator range) : locks_(locks), range_(range) {}

    GuestLocks& locks_;
    std::list<Range>::iterator range_;
  };

  // Waits until no thread holds a cluster of [begin, end).  A thread that holds a range must not
  // lock another.
  [[nodiscard]] Guard lock(ClusterIndex begin, ClusterIndex end) {
    MutexLock lock(mutex_);
    while (is_held(begin, end)) released_.wait(lock);
    return Guard(*this, held_.insert(held_.end(), {begin, end}));
  }

 private:
  bool is_held(ClusterIndex begin, ClusterIndex end) const REQUIRES(mutex_) {
    return std::any_of(held_.begin(), held_.end(), [&](const Guard::Range& held) {
      return held.begin < end && begin < held.end;
    });
  }
  void release(std::list<Guard::Range>::iterator range) {
    {
      const MutexLock lock(mutex_);
      held_.erase(range);
    }
    released_.notify_all();
  }

  Mutex mutex_;
  ConditionVariable released_;
  std::list<Guard::Range> held_ GUARDED_BY(mutex_);  // as many as there are writing threads
};

}  // namespace vc::qcow2
