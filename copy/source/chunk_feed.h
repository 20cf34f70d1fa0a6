// Divides the source into chunks, in guest order, and skips what needs no copying.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "base/rate_limit.h"
#include "base/result.h"
#include "base/stop.h"
#include "copy/source/chunk.h"
#include "copy/source/source.h"
#include "qcow2/format/geometry.h"

namespace vc::copy {

// Hands out a chunk together with its memory, under one lock. So the lowest chunk in progress
// always has memory, and a thread that waits for memory waits only for earlier chunks. Deadlock is
// impossible.
//
// Thread-safe.
class ChunkFeed {
 public:
  struct Options {
    qcow2::Geometry geometry;       // of the destination
    uint64_t chunk_size = 1 << 20;  // bytes; rounded to clusters, at least one
    size_t chunks = 4;              // in memory at the same time
    bool compress = false;          // allocate space for compressed streams
    // Zeros must be copied: they hide data of a backing file that is kept.
    bool explicit_zeros = false;
    RateLimit* limit = nullptr;  // outlives the feed; nullptr: none
    // The part of the source that is divided.  Multiples of the unit of a chunk, or the end of the
    // source.
    uint64_t begin = 0;
    uint64_t end = Source::kUnknownSize;
    // Chunks begin and end at multiples of this, bytes: a power of two.
    uint64_t unit = 1;
  };

  ChunkFeed(Source& source, const Options& options, const Stop& stop);

  enum class Wait { kYes, kNo };
  // Returns the next chunk that may hold data; the caller must recycle() it. Returns nullptr if
  // there are no more chunks (see exhausted()), if the pipeline stops, or if all memory is in use
  // and `wait` is kNo.
  Result<Chunk*> next(Wait wait);

  void recycle(Chunk* chunk);

  // Wakes waiting threads, so that they check `stop`.
  void wake() { recycled_.notify_all(); }

  // Returns true after next() has returned the last chunk.
  bool exhausted() const;

  // Returns the guest bytes that were skipped so far: those before the part, and those that read as
  // zeros.
  uint64_t skipped() const;

 private:
  bool passes_over(const qcow2::Extent& extent) const {
    return options_.explicit_zeros ? extent.kind == qcow2::ExtentKind::kUnallocated
                                   : extent.reads_as_zero();
  }
  uint64_t end() const { return std::min(source_.size(), options_.end); }
  // Returns false at the end of the part.
  Result<bool> plan(Chunk& chunk) REQUIRES(mutex_);
  Result<bool> find_data() REQUIRES(mutex_);
  Result<void> refill() REQUIRES(mutex_);

  Source& source_;
  const Options options_;
  const Stop& stop_;
  const uint64_t unit_;  // chunks begin at multiples of this, bytes
  const uint64_t clusters_at_once_;

  mutable Mutex mutex_;
  ConditionVariable recycled_;
  std::vector<std::unique_ptr<Chunk>> chunks_ GUARDED_BY(mutex_);
  std::vector<Chunk*> free_ GUARDED_BY(mutex_);
  // known extents after position_, in order
  std::vector<qcow2::Extent> ahead_ GUARDED_BY(mutex_);
  size_t ahead_at_ GUARDED_BY(mutex_) = 0;   // index of the first extent that is not used up
  GuestOffset position_ GUARDED_BY(mutex_);  // everything before is planned or skipped
  uint64_t sequence_ GUARDED_BY(mutex_) = 0;
  uint64_t skipped_ GUARDED_BY(mutex_) = 0;
  bool exhausted_ GUARDED_BY(mutex_) = false;
};

}  // namespace vc::copy
