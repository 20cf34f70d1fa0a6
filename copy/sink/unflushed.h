// Writes that a server acknowledged but did not flush yet.
#pragma once

#include <cstdint>
#include <vector>

#include "base/mutex.h"

namespace vc::copy {

// A server that crashes may lose acknowledged writes since its last flush. This class records these
// writes with digests, so that they can be checked after a reconnect.
//
// A recovery begins an epoch. A thread that writes while an epoch begins cannot know whether the
// old or the new server acknowledged the write. Its write counts only if add() gets the epoch in
// which the write started.
//
// Thread-safe.
class Unflushed {
 public:
  struct Record {
    uint64_t at = 0;      // bytes
    uint64_t length = 0;  // bytes
    bool zero = false;    // zeros were requested; `digest` is unused
    uint64_t digest = 0;
  };

  uint64_t epoch() const;

  // Records writes. Returns false, and records nothing, if another epoch has begun.
  bool add(uint64_t epoch, const std::vector<Record>& records);

  // Begins an epoch after a reconnect. Returns all writes that the server must have.
  std::vector<Record> begin_epoch();

  // Returns true if a flush is due and no other thread has claimed it. The caller must then flush.
  bool claim_flush();
  // Must be called before a flush is sent.
  void flushing();
  // Drops the records that existed at flushing(), after a successful flush.
  void flushed();

 private:
  mutable Mutex mutex_;
  uint64_t epoch_ GUARDED_BY(mutex_) = 0;
  std::vector<Record> records_ GUARDED_BY(mutex_);
  // number of leading records that the current flush covers
  size_t in_flush_ GUARDED_BY(mutex_) = 0;
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;  // of data
  bool claimed_ GUARDED_BY(mutex_) = false;
};

}  // namespace vc::copy
