// Finds out when no request can use a freed cluster any more.
//
// A reader looks up a mapping under a lock and reads the file after it releases the lock.  In
// between, the cluster may be freed.  The cluster must not be reused (or punched, if the reader is
// to see the old data) before that read is done:
//
//     reader    look up: cluster 7 …………………………… read cluster 7
//     discard           guest offset 0: 7 → nothing
//     writer                     allocate 7, write other data    ← must wait
//
// So each request holds a ticket, and freed clusters wait until all earlier tickets are returned.
#pragma once

#include <cstdint>
#include <map>

#include "base/mutex.h"

namespace vc::qcow2 {

class Epochs {
 public:
  // A request holds it from before its first look-up until its last I/O.
  class Ticket {
   public:
    explicit Ticket(Epochs& epochs) : epochs_(epochs), epoch_(epochs.enter()) {}
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    ~Ticket() { epochs_.leave(epoch_); }

   private:
    Epochs& epochs_;
    uint64_t epoch_;
  };

  // Ends the epoch and returns its number.  Clusters unlinked before the call are unused once
  // oldest () is greater.
  uint64_t advance() {
    const MutexLock lock(mutex_);
    return current_++;
  }

  // Returns the epoch of the oldest ticket in use, or the current one.
  uint64_t oldest() const {
    const MutexLock lock(mutex_);
    return tickets_.empty() ? current_ : tickets_.begin()->first;
  }

 private:
  uint64_t enter() {
    const MutexLock lock(mutex_);
    ++tickets_[current_];
    return current_;
  }
  void leave(uint64_t epoch) {
    const MutexLock lock(mutex_);
    const auto found = tickets_.find(epoch);
    if (--found->second == 0) tickets_.erase(found);
  }

  mutable Mutex mutex_;
  uint64_t current_ GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, uint64_t> tickets_ GUARDED_BY(mutex_);  // tickets in use by epoch
};

}  // namespace vc::qcow2
