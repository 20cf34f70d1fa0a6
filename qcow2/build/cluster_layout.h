// The clusters of a new image file, taken from front to back, with their refcount blocks.
//
// See builder.h for the layout, and for the order in which its parts are written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "qcow2/build/tail_layout.h"
#include "qcow2/format/build_options.h"
#include "qcow2/format/geometry.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Not thread-safe.  After a storage error the object must not be used.
class ClusterLayout {
 public:
  // `out` must outlive the object.  `zero_gaps`: bytes in gaps between streams are zeroed.
  ClusterLayout(Storage& out, const BuildOptions& options, bool zero_gaps);

  // From now on, streams fill at most half of the count of a cluster. So the counts are wide enough
  // if a snapshot becomes the active disk, which adds one reference to each of its streams.
  void leave_spare_counts() { spare_ = true; }

  // Returns the first free cluster of the file; all later ones are free, too.
  uint64_t next() const { return next_; }

  // Takes the next cluster, whose count stays 0 until count (); and up to `most` clusters after the
  // last one that was taken, within the same range.  Returns the number of those.
  Result<uint64_t> take();
  uint64_t take_more(uint64_t most);
  // Adds `times` references to a cluster of the current range.
  void count(uint64_t cluster, uint64_t times = 1);

  // Takes a place for a compressed stream of `length` bytes, adds `times` references to its
  // clusters, and returns its offset in the file.
  Result<uint64_t> place_stream(uint64_t length, uint64_t times = 1);

  // Takes `clusters` contiguous clusters for a table, which may be longer than a range, and counts
  // them once. Writes the refcount blocks of the ranges that the table ends directly after it.
  // Returns the first cluster.
  Result<uint64_t> place_table(uint64_t clusters);

  Result<void> write_cluster(uint64_t cluster, const AlignedBuffer& bytes);

  // Writes `l1` (the L1 table, and what follows it: whole clusters), the refcount table, and the
  // last refcount blocks.  Nothing may be taken after it.  Returns the places.
  Result<TailLayout> write_tail(std::span<const std::byte> l1);

 private:
  // Returns the cluster of the current range reserved for its refcount block.
  uint64_t reserved() const { return (range_ + 1) * per_block_ - 1; }
  uint64_t get_count(uint64_t cluster) const;
  bool can_count(uint64_t cluster, uint64_t times) const;
  Result<void> close_range();
  Result<void> write_block(uint64_t cluster);
  Result<void> leave_gap(uint64_t begin);
  Result<void> end_packing();
  Result<void> end_left();

  Storage& out_;
  const Geometry geometry_;
  const unsigned refcount_order_;
  const bool zero_gaps_;
  bool spare_ = false;
  const uint64_t per_block_;  // clusters per refcount block

  uint64_t next_ = 1;
  // The position of the next stream, or 0 if there is none.  Invariant: it is not at the start of a
  // cluster, and its cluster is next_ - 1.
  uint64_t pack_ = 0;
  // The position of a gap for a short stream, in a cluster that other clusters have followed: 0, or
  // within the current range.  Given up when next_ reaches left_until_, so that a sequential writer
  // of the file need not buffer much.
  uint64_t left_ = 0;
  uint64_t left_until_ = 0;

  uint64_t range_ = 0;                    // the range of next_, unless next_ is about to leave it
  AlignedBuffer refcounts_;               // the counts of that range
  std::vector<uint64_t> refcount_table_;  // blocks of the earlier ranges
};

}  // namespace vc::qcow2
