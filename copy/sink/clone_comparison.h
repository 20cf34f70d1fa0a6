// Compares clones of a copy with the source, by the blocks that they share.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "copy/sink/digests.h"
#include "copy/source/chunk.h"
#include "copy/source/cloning.h"
#include "copy/source/source.h"
#include "qcow2/format/geometry.h"
#include "storage/file_blocks.h"

namespace vc::copy {

// Bytes that are in the same blocks of a filesystem are equal without being read. Where that is not
// known, both are read. Thread-safe.
class CloneComparison {
 public:
  // All arguments must outlive the object. `original`: the source of the copy, which nothing else
  // uses meanwhile.
  CloneComparison(const Digests& digests, const Cloning& cloning, Source& original, Source& copy)
      : digests_(digests), cloning_(cloning), original_(original), copy_(copy) {}

  // Marks (Chunk::Clone::kYes) the clusters of recorded clones that are equal to the original.
  // `chunk` is a prepared chunk of the copy, and has whole groups.
  Result<void> mark_equal(Chunk& chunk, const qcow2::Geometry& geometry);

  // Return the guest bytes that were compared by their blocks, and by reading.
  uint64_t shared() const { return shared_; }
  uint64_t read() const { return read_; }

 private:
  using Extents = std::vector<qcow2::Extent>;

  Result<bool> is_equal(const Chunk& chunk, GuestOffset begin, GuestOffset end) REQUIRES(mutex_);
  Result<Extents> map_original(GuestOffset begin, GuestOffset end) REQUIRES(mutex_);
  bool are_shared(const qcow2::Extent& copy, const qcow2::Extent& original, GuestOffset begin,
                  GuestOffset end) REQUIRES(mutex_);
  Result<bool> reads_equal(GuestOffset begin, GuestOffset end) REQUIRES(mutex_);

  const Digests& digests_;
  const Cloning& cloning_;
  Mutex mutex_;
  Source& original_ GUARDED_BY(mutex_);
  Source& copy_ GUARDED_BY(mutex_);
  std::map<const FileStorage*, FileBlocks> blocks_ GUARDED_BY(mutex_);
  std::atomic<uint64_t> shared_ = 0;
  std::atomic<uint64_t> read_ = 0;
};

}  // namespace vc::copy
