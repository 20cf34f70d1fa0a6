// Measures how often a sequential read of the disk seeks in the file.
//
// The disk is read in guest order, cluster by cluster.  Holes and zeros are skipped, since they
// need no read.  Data that directly follows the previous read in the file belongs to the same run.
// Otherwise a new run starts.  A run counts as a seek only if it is far from the end of the
// previous one, in either direction: near data is in the same read-ahead or under the same disk
// head.
//
// Compression alone does not count as fragmentation.  Streams are packed without alignment: a
// stream that starts in the sector in which the previous one ends follows it.
#pragma once

#include <cstdint>

#include "qcow2/format/geometry.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// Receives the reads in guest order.  Uses constant memory.  Not thread-safe.
class Fragmentation {
 public:
  // The largest gap between two runs, in bytes, that does not count as a seek.
  static constexpr uint64_t kNear = 1 << 20;

  struct Figures {
    uint64_t plain_bytes = 0;
    uint64_t compressed_clusters = 0;
    // The sum of the descriptors' lengths: each up to the end of the last sector.
    uint64_t compressed_bytes = 0;
    uint64_t runs = 0;
    uint64_t longest_run = 0;  // bytes of the file
    // Bytes read from the file.  Sectors that two consecutive streams share count once.
    uint64_t read_bytes = 0;
    uint64_t seeks = 0;  // runs that start far from the end of the previous one
    // Steps from a compressed cluster to the next cluster of the disk, if it is compressed, too.
    uint64_t compressed_steps = 0;
    uint64_t compressed_steps_near = 0;  // those of them to a following or near stream

    // Returns the mean run in bytes; 0 if nothing is read.
    uint64_t mean_run() const { return runs == 0 ? 0 : read_bytes / runs; }
    // Returns the percentage of steps between clusters that end a run; 0 for a single run.
    double percent(const Geometry& geometry) const;
  };

  explicit Fragmentation(const Geometry& geometry) : geometry_(geometry) {}

  // Adds a read of `length` bytes (at least 1) of uncompressed data at `at`.
  void plain(HostOffset at, uint64_t length);
  // Adds a read of a compressed cluster; `length` is CompressedDescriptor::readable_bytes ().
  void compressed(HostOffset at, uint64_t length);

  const Figures& figures() const { return figures_; }

 private:
  enum class Last { kNothing, kPlain, kCompressed };

  void step(HostOffset at, uint64_t length, bool follows, bool is_near, uint64_t shared);
  bool near(HostOffset at) const;

  Geometry geometry_;
  Figures figures_;
  Last last_ = Last::kNothing;
  HostOffset begin_;  // start of the last read
  HostOffset end_;
  uint64_t run_ = 0;  // bytes of the current run
};

}  // namespace vc::qcow2
