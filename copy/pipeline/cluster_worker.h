// What happens to a chunk between reading and placing: looking for zeros, and compression.
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

namespace copy {

// One for each thread.  The result for a cluster depends on its bytes alone, so that it does not
// matter which thread gets which chunk.
class ClusterWorker {
 public:
  struct Options {
    qcow2::Geometry geometry;                                    // of the destination
    std::optional<qcow2::CompressionType> compression;           // nothing: plain clusters
    int level = 0;                                               // 0: the codec's standard one
    qcow2::DeflateWindow window = qcow2::DeflateWindow::k32KiB;  // of zlib
    // Only clusters that are compressed in a local source, at least in part, are compressed.
    bool keep_plain = false;
  };

  static qcow2::Result<ClusterWorker> create(const Options& options);

  // Reads what the chunk's extents call data from a local source into `bytes`, except compressed
  // clusters that can go across as they are: their streams go to `packed`.
  qcow2::Result<void> read(const LocalSource& source, Chunk& chunk);

  // Decides what each cluster becomes, and fills `packed`.  What was read stands in `bytes`.
  // Returns with the work half done when `stop` is requested, since a slow codec takes its time for
  // a chunk.
  void encode(Chunk& chunk, const Stop& stop);

 private:
  using Cluster = Chunk::Cluster;

  ClusterWorker(const Options& options, std::optional<qcow2::Encoder> encoder);

  bool can_pass_through(const LocalSource& source, const qcow2::Extent& extent) const;
  void mark_compressed(const qcow2::Extent& extent, Chunk& chunk) const;
  qcow2::Result<void> pass_through(const LocalSource& source, const qcow2::Extent& extent,
                                   Chunk& chunk);

  Options options_;
  std::optional<qcow2::Encoder> encoder_;
  qcow2::Decoder decoder_;
  qcow2::AlignedBuffer stream_;   // as read from the source, with what follows it
  qcow2::AlignedBuffer scratch_;  // one cluster
};

}  // namespace copy
