// The work on a chunk between reading and placing: zero detection and compression.
#pragma once

#include <cstdint>
#include <optional>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "base/stop.h"
#include "copy/source/chunk.h"
#include "copy/source/local_source.h"
#include "qcow2/format/codec.h"
#include "qcow2/format/geometry.h"

namespace vc::copy {

// One worker per thread. The result for a cluster depends only on its bytes, so any thread can
// process any chunk.
class ClusterWorker {
 public:
  struct Options {
    qcow2::Geometry geometry;                                    // of the destination
    std::optional<qcow2::CompressionType> compression;           // nullopt: uncompressed clusters
    int level = 0;                                               // 0: codec's default
    qcow2::DeflateWindow window = qcow2::DeflateWindow::k32KiB;  // zlib only
    // Compresses only clusters that are at least partly compressed in a local source.
    bool keep_plain = false;
  };

  static Result<ClusterWorker> create(const Options& options);

  // Reads the chunk's data extents from a local source into `bytes`. Compressed clusters that can
  // be copied without recompression are read into `packed` instead.
  Result<void> read(const LocalSource& source, Chunk& chunk);

  // Decides how to store each cluster, and fills `packed`. `bytes` must hold the data that was
  // read. Returns early, with the chunk incomplete, when `stop` is requested: a slow codec needs
  // long for a chunk.
  void encode(Chunk& chunk, const Stop& stop);

 private:
  using Cluster = Chunk::Cluster;

  ClusterWorker(const Options& options, std::optional<qcow2::Encoder> encoder);

  bool can_pass_through(const LocalSource& source, const qcow2::Extent& extent) const;
  void mark_compressed(const qcow2::Extent& extent, Chunk& chunk) const;
  Result<void> pass_through(const LocalSource& source, const qcow2::Extent& extent, Chunk& chunk);

  Options options_;
  std::optional<qcow2::Encoder> encoder_;
  qcow2::Decoder decoder_;
  AlignedBuffer stream_;   // raw bytes from the source, may include what follows the stream
  AlignedBuffer scratch_;  // one cluster
};

}  // namespace vc::copy
