// When has everybody who may still use a freed cluster let go of it?
//
// A reader looks up a mapping under a lock and reads the file after it has let the lock go.  In
// between, the cluster may be freed.  It must not be given to another use (or punched, if the
// reader is to see what was there) before that read is done:
//
//     reader    look up: cluster 7 …………………………… read cluster 7
//     discard           guest offset 0: 7 → nothing
//     writer                     allocate 7, write other data    ← must wait
//
// So each request holds a ticket, and what is freed waits until all tickets that were out then have
// been given back.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace qcow2 {

class Epochs {
 public:
  // Held by a request from before its first look-up until its last I/O.
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

  // Ends the epoch: returns its number.  What was unlinked before the call is out of use as soon as
  // oldest () is greater.
  uint64_t advance() {
    const std::lock_guard lock(mutex_);
    return current_++;
  }

  // The epoch of the oldest ticket that is out, or the current one.
  uint64_t oldest() const {
    const std::lock_guard lock(mutex_);
    return tickets_.empty() ? current_ : tickets_.begin()->first;
  }

 private:
  uint64_t enter() {
    const std::lock_guard lock(mutex_);
    ++tickets_[current_];
    return current_;
  }
  void leave(uint64_t epoch) {
    const std::lock_guard lock(mutex_);
    const auto found = tickets_.find(epoch);
    if (--found->second == 0) tickets_.erase(found);
  }

  mutable std::mutex mutex_;
  uint64_t current_ = 1;                  // guarded by mutex_
  std::map<uint64_t, uint64_t> tickets_;  // guarded by mutex_; how many are out, by epoch
};

}  // namespace qcow2
