// Computes digests of the data on its way to a destination.
#pragma once

#include <optional>

#include "copy/pipeline/sink.h"
#include "copy/sink/digests.h"
#include "qcow2/format/decoder_pool.h"
#include "qcow2/format/header.h"

namespace vc::copy {

// Wraps another sink. The digests are of guest data: before compression, and after decoding for
// clusters that are copied without recompression.
class DigestSink final : public Sink {
 public:
  // `compression`: codec of compressed clusters in the chunks; nullopt if there are none. `next`
  // and `digests` must outlive this object. The granule of `digests` must divide the sink's cluster
  // size.
  DigestSink(Sink& next, Digests& digests, std::optional<qcow2::CompressionType> compression)
      : next_(next), digests_(digests), compression_(compression) {}

  const qcow2::Geometry& geometry() const override { return next_.geometry(); }
  Result<void> place(Chunk& chunk) override { return next_.place(chunk); }
  // Fails if a compressed stream of the source cannot be decoded.
  Result<void> write(const Chunk& chunk) override;
  Result<void> finish() override { return next_.finish(); }

 private:
  Result<void> add(const Chunk& chunk);
  Result<void> add_decoded(const Chunk& chunk, const Chunk::Cluster& cluster, GuestOffset at);

  Sink& next_;
  Digests& digests_;
  const std::optional<qcow2::CompressionType> compression_;
  qcow2::DecoderPool decoders_;
};

}  // namespace vc::copy
