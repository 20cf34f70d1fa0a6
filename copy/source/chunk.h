// The pipeline's unit of work: consecutive clusters of the destination.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "qcow2/format/geometry.h"
#include "qcow2/read/extent.h"
#include "storage/offset.h"

namespace vc {
class FileStorage;
}

namespace vc::copy {

struct Chunk {
  enum class Clone : uint8_t {
    kNo,
    kMaybe,  // is read, and cloned unless it is zeros
    kYes,    // `bytes` are not valid; the pieces say what is cloned
  };

  struct Cluster {
    enum class Kind : uint8_t {
      kHole,        // unallocated: reads as zeros, or as a kept backing file
      kSaidZero,    // zeros according to the source; not read
      kZero,        // read, and all zeros
      kData,        // stored uncompressed, from `bytes`
      kCompressed,  // stored compressed, from `packed`
    };
    Kind kind = Kind::kHole;
    bool passed_through = false;  // stream copied from the source
    bool was_compressed = false;  // at least partly, in the source
    Clone clone = Clone::kNo;     // kData
    uint32_t packed_at = 0;       // kCompressed: offset in `packed`, bytes
    uint32_t packed_length = 0;   // kCompressed: bytes
    HostOffset host;              // kData, kCompressed: offset in the destination
  };

  // Data of the source that can be cloned.
  struct Piece {
    uint64_t begin = 0;  // in the chunk, bytes
    uint64_t end = 0;
    const FileStorage* from = nullptr;
    HostOffset at;  // of `begin` in that file
  };

  // Chunks are numbered in guest order, without gaps.
  uint64_t sequence = 0;
  ClusterIndex first;
  std::vector<Cluster> clusters;
  // The source's extents of these clusters. They end at the end of the disk, possibly before the
  // last cluster ends.
  std::vector<qcow2::Extent> extents;
  std::vector<Piece> pieces;  // in order, without overlap
  AlignedBuffer bytes;        // one cluster of space for each
  AlignedBuffer packed;       // the same size, if anything can be compressed
  // [gap, begin()) reads as zeros. Set by place() of sinks that need it.
  GuestOffset gap;

  GuestOffset begin() const { return extents.front().guest; }
  GuestOffset end() const { return extents.back().end(); }
  // Returns the part of `bytes` for cluster `index` of the chunk.
  std::span<std::byte> cluster_bytes(size_t index, uint64_t cluster_size) {
    return bytes.span().subspan(index * cluster_size, cluster_size);
  }
};

// Zeroes the parts of `chunk.bytes` that share a cluster with data but are not data, and marks the
// clusters that hold data. Must precede the reading of data.
void prepare(Chunk& chunk, const qcow2::Geometry& geometry);

}  // namespace vc::copy
