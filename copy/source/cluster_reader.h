// Reads the clusters of a chunk from a disk in this process, for one thread.
#pragma once

#include <memory>
#include <span>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "copy/source/chunk.h"
#include "copy/source/clone_finder.h"
#include "copy/source/cloning.h"
#include "qcow2/format/codec.h"
#include "qcow2/format/geometry.h"
#include "qcow2/read/disk.h"

namespace vc::copy {

class ClusterReader {
 public:
  struct Options {
    qcow2::Geometry geometry;          // of the destination
    qcow2::Compression compression;    // of the destination
    std::shared_ptr<Cloning> cloning;  // nullptr: nothing is cloned
  };

  explicit ClusterReader(const Options& options);

  // Reads the chunk's data extents into `bytes`. Compressed clusters that can be copied without
  // recompression are read into `packed` instead. With `salvage`, a cluster that cannot be copied
  // is decoded. Does not read what is cloned; `files`: see CloneFinder.
  Result<void> read(const qcow2::Disk& disk, CloneFinder::Files files, bool salvage, Chunk& chunk);

 private:
  using Cluster = Chunk::Cluster;

  bool can_pass_through(const qcow2::Disk& disk, const qcow2::Extent& extent) const;
  void mark_compressed(const qcow2::Extent& extent, Chunk& chunk) const;
  Result<void> read_extent(const qcow2::Disk& disk, const qcow2::Extent& extent,
                           Chunk& chunk) const;
  Result<void> pass_through(const qcow2::Disk& disk, const qcow2::Extent& extent, Chunk& chunk);

  Options options_;
  qcow2::Decoder decoder_;
  AlignedBuffer stream_;   // raw bytes from the source, may include what follows the stream
  AlignedBuffer scratch_;  // one cluster
};

}  // namespace vc::copy
