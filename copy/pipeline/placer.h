// Puts chunks back in guest order and has the sink say where they go.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "copy/pipeline/sink.h"
#include "copy/source/chunk.h"

namespace copy {

// Thread-safe.  Under the lock there is only deciding (and, now and then, a cluster of metadata to
// write); the guest's bytes are written outside of it.
class Placer {
 public:
  explicit Placer(Sink& sink) : sink_(sink) {}

  // Takes a finished chunk.  Returns, in guest order, the chunks that have their places by this:
  // none if one before it is still under way, several if others waited for it.  The caller writes
  // them.
  qcow2::Result<std::vector<Chunk*>> complete(Chunk* chunk);

 private:
  std::mutex mutex_;
  Sink& sink_;                        // place () with mutex_ held
  uint64_t next_ = 0;                 // guarded by mutex_; the sequence number to be placed next
  std::map<uint64_t, Chunk*> early_;  // guarded by mutex_; those behind it
};

}  // namespace copy
