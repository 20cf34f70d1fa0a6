// Cuts the source into chunks, in guest order, and leaves out what needs no copying.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/rate_limit.h"
#include "base/result.h"
#include "base/stop.h"
#include "copy/source/chunk.h"
#include "copy/source/source.h"
#include "qcow2/format/geometry.h"

namespace copy {

// A chunk and the memory behind it are given out under one lock: so the lowest chunk that is under
// way always has its memory, and everybody who waits for memory waits for chunks that come before
// his.  There is nothing to dead-lock on.
//
// Thread-safe.
class ChunkFeed {
 public:
  struct Options {
    qcow2::Geometry geometry;       // of the destination
    uint64_t chunk_size = 1 << 20;  // bytes; rounded to clusters, at least one
    size_t chunks = 4;              // in memory at once
    bool compress = false;          // give them room for streams
    // Zeros must be copied: they hide data of a backing file that is kept.
    bool explicit_zeros = false;
    RateLimit* limit = nullptr;  // outlives the feed; nullptr: none
  };

  ChunkFeed(Source& source, const Options& options, const Stop& stop);

  enum class Wait { kYes, kNo };
  // The next chunk that may hold data, to be given back to recycle ().  nullptr: there is none any
  // more (see exhausted ()), the pipeline stops, or all memory is out and `wait` is kNo.
  qcow2::Result<Chunk*> next(Wait wait);

  void recycle(Chunk* chunk);

  // Wakes those who wait, to look at `stop` again.
  void wake() { recycled_.notify_all(); }

  // next () has given out the last chunk.
  bool exhausted() const;

  // Guest bytes that were passed over so far, since they read as zeros.
  uint64_t skipped() const;

 private:
  bool passes_over(const qcow2::Extent& extent) const {
    return options_.explicit_zeros ? extent.kind == qcow2::ExtentKind::kUnallocated
                                   : extent.reads_as_zero();
  }
  // With mutex_ held.  False at the end of the disk.
  qcow2::Result<bool> plan(Chunk& chunk);
  qcow2::Result<bool> find_data();
  qcow2::Result<void> refill();

  Source& source_;
  const Options options_;
  const Stop& stop_;
  const uint64_t unit_;  // chunks begin at multiples of this many bytes
  const uint64_t clusters_at_once_;

  mutable std::mutex mutex_;
  std::condition_variable recycled_;
  // All guarded by mutex_.
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<Chunk*> free_;
  std::vector<qcow2::Extent> ahead_;  // known extents from position_ on, in order
  size_t ahead_at_ = 0;               // the first of them that is not behind us
  qcow2::GuestOffset position_;       // all before it is planned, or passed over
  uint64_t sequence_ = 0;
  uint64_t skipped_ = 0;
  bool exhausted_ = false;
};

}  // namespace copy
