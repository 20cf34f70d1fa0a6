// A destination that a test can inspect, and functions that run a pipeline into a sink.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/stop.h"
#include "copy/pipeline/pipeline.h"
#include "copy/pipeline/sink.h"

namespace vc::test {

class MemorySink final : public copy::Sink {
 public:
  MemorySink(uint64_t size, unsigned cluster_bits) : bytes(size), geometry_(cluster_bits, false) {}

  const qcow2::Geometry& geometry() const override { return geometry_; }
  Result<void> place(copy::Chunk& /*chunk*/) override { return {}; }
  Result<void> write(const copy::Chunk& chunk) override {
    const uint64_t size = geometry_.cluster_size();
    for (size_t i = 0; i < chunk.clusters.size(); ++i) {
      const uint64_t at = chunk.begin().value() + i * size;
      if (chunk.clusters[i].kind == copy::Chunk::Cluster::Kind::kData)
        std::memcpy(bytes.data() + at, chunk.bytes.data() + i * size,
                    std::min(size, bytes.size() - at));
    }
    return {};
  }
  Result<void> finish() override { return {}; }

  std::vector<std::byte> bytes;

 private:
  qcow2::Geometry geometry_;
};

// Copies all of `source` into `sink`.
inline Result<void> run_into(copy::Source& source, copy::Sink& sink, Progress& progress, Stop& stop,
                             unsigned threads = 2) {
  copy::Pipeline::Options options;
  options.worker.geometry = sink.geometry();
  options.chunk_size = std::max<uint64_t>(256 << 10, sink.geometry().cluster_size());
  options.chunks = 16;
  options.threads = threads;
  copy::Pipeline pipeline(source, sink, progress, stop, options);
  RETURN_IF_ERROR(pipeline.run());
  return sink.finish();
}

}  // namespace vc::test
