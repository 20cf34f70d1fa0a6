// The unit of work of the pipeline: a few clusters of the destination in a row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "qcow2/format/geometry.h"
#include "qcow2/read/extent.h"
#include "storage/offset.h"

namespace copy {

struct Chunk {
  struct Cluster {
    enum class Kind : uint8_t {
      kHole,        // the source has nothing to say: it reads as zeros (or as a kept backing file)
      kSaidZero,    // the source says zeros: nothing was read
      kZero,        // read, and only zeros
      kData,        // stored as it is, from `bytes`
      kCompressed,  // stored as a stream, from `packed`
    };
    Kind kind = Kind::kHole;
    bool passed_through = false;  // the stream is the source's own
    bool was_compressed = false;  // in the source, or a part of it was
    uint32_t packed_at = 0;       // kCompressed: bytes, from the start of `packed`
    uint32_t packed_length = 0;   // kCompressed: bytes
    qcow2::HostOffset host;       // kData, kCompressed: where the builder wants it
  };

  // Chunks are numbered in guest order, without gaps.
  uint64_t sequence = 0;
  qcow2::ClusterIndex first;
  std::vector<Cluster> clusters;
  // What the source says of these clusters; it may end before the last cluster does, with the disk.
  std::vector<qcow2::Extent> extents;
  qcow2::AlignedBuffer bytes;   // a cluster of room for each
  qcow2::AlignedBuffer packed;  // as much again, if anything is to be compressed
  // What lies from here up to begin () reads as zeros; set by the place () of sinks that care.
  qcow2::GuestOffset gap;

  qcow2::GuestOffset begin() const { return extents.front().guest; }
  qcow2::GuestOffset end() const { return extents.back().end(); }
};

// Zeroes the parts of `chunk.bytes` that no data extent covers but that share a cluster with one,
// and marks the clusters that hold data.  Before the data is read.
void prepare(Chunk& chunk, const qcow2::Geometry& geometry);

}  // namespace copy
