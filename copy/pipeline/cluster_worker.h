// The work on a chunk between reading and placing: zero detection and compression.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "base/stop.h"
#include "copy/source/chunk.h"
#include "copy/source/cloning.h"
#include "copy/source/cluster_reader.h"
#include "copy/source/source.h"
#include "qcow2/format/codec.h"
#include "qcow2/format/geometry.h"

namespace vc::copy {

// One worker per thread. The result for a cluster depends only on its bytes, so any thread can
// process any chunk.
class ClusterWorker {
 public:
  struct Options {
    qcow2::Geometry geometry;  // of the destination
    qcow2::Compression compression;
    // Compresses only clusters that are at least partly compressed in a local source.
    bool keep_plain = false;
    std::shared_ptr<Cloning> cloning;  // nullptr: nothing is cloned
  };

  static Result<ClusterWorker> create(const Options& options);

  // See Source::load().
  Result<void> load(Source& source, Chunk& chunk) { return source.load(chunk, reader_); }

  // Decides how to store each cluster, and fills `packed`. `bytes` must hold the data that was
  // read. Returns early, with the chunk incomplete, when `stop` is requested: a slow codec needs
  // long for a chunk.
  void encode(Chunk& chunk, const Stop& stop);

 private:
  using Cluster = Chunk::Cluster;

  ClusterWorker(const Options& options, std::optional<qcow2::Encoder> encoder);

  Options options_;
  std::optional<qcow2::Encoder> encoder_;
  ClusterReader reader_;
};

}  // namespace vc::copy
