// How far a sequential read of the disk jumps about in the file.
//
// A file is read in the guest's order: cluster by cluster, holes and zeros passed over, since
// nothing is read for them.  What lies in the file just behind what was read before belongs to the
// same run.  Where it does not, a run ends, and another begins; only if that one is far away, in
// either direction, is it a seek: what is near is in the same read-ahead, or under the same head.
//
// Whether a cluster is compressed does not make it fragmented.  Streams are packed to the byte, and
// one that begins in the sector in which the last one ends follows it as well as a cluster follows
// another.
#pragma once

#include <cstdint>

#include "qcow2/format/geometry.h"
#include "storage/offset.h"

namespace qcow2 {

// Takes what the guest reads in its order.  Needs the same memory for any image.  Not thread-safe.
class Fragmentation {
 public:
  // Bytes between the end of one run and the start of the next, up to which it is no seek.
  static constexpr uint64_t kNear = 1 << 20;

  struct Figures {
    uint64_t plain_bytes = 0;
    uint64_t compressed_clusters = 0;
    // As their descriptors say: each is counted to the end of its last sector.
    uint64_t compressed_bytes = 0;
    uint64_t runs = 0;
    uint64_t longest_run = 0;  // bytes of the file
    // Bytes of the file that are read, those in sectors that two streams share once if they follow
    // each other.
    uint64_t read_bytes = 0;
    uint64_t seeks = 0;  // runs that begin far from where the one before ended
    // From a compressed cluster straight to the next cluster of the disk that is compressed, too.
    uint64_t compressed_steps = 0;
    uint64_t compressed_steps_near = 0;  // of them, to what follows or is near

    // Bytes; 0 when nothing is read.
    uint64_t mean_run() const { return runs == 0 ? 0 : read_bytes / runs; }
    // Of the steps from one cluster to the next, how many end a run, in percent: 0 for a single
    // run.
    double percent(const Geometry& geometry) const;
  };

  explicit Fragmentation(const Geometry& geometry) : geometry_(geometry) {}

  // `length` bytes, at least 1, of plain data that the guest reads next lie at `at`.
  void plain(HostOffset at, uint64_t length);
  // The same, of a compressed cluster: `length` is CompressedDescriptor::readable_bytes ().
  void compressed(HostOffset at, uint64_t length);

  const Figures& figures() const { return figures_; }

 private:
  enum class Last { kNothing, kPlain, kCompressed };

  void step(HostOffset at, uint64_t length, bool follows, bool is_near, uint64_t shared);
  bool near(HostOffset at) const;

  Geometry geometry_;
  Figures figures_;
  Last last_ = Last::kNothing;
  HostOffset begin_;  // of what was read last
  HostOffset end_;
  uint64_t run_ = 0;  // bytes of the run so far
};

}  // namespace qcow2
