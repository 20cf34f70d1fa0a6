// Restores the guest order of chunks, and lets the sink decide their locations.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "copy/pipeline/sink.h"
#include "copy/source/chunk.h"

namespace vc::copy {

// Thread-safe. Under the lock, only decisions are made and an occasional metadata cluster is
// written. Guest data is written outside of the lock.
class Placer {
 public:
  explicit Placer(Sink& sink) : sink_(sink) {}

  // Takes a finished chunk. Returns the chunks that get their locations by this, in guest order:
  // none if an earlier chunk is unfinished, several if others waited for this one. The caller must
  // write them.
  Result<std::vector<Chunk*>> complete(Chunk* chunk);

 private:
  Mutex mutex_;
  Sink& sink_ GUARDED_BY(mutex_);
  uint64_t next_ GUARDED_BY(mutex_) = 0;                 // next sequence number to place
  std::map<uint64_t, Chunk*> early_ GUARDED_BY(mutex_);  // finished chunks after next_
};

}  // namespace vc::copy
