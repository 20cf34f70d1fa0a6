// Takes the digests of what goes to a destination, on its way there.
#pragma once

#include <optional>

#include "copy/pipeline/sink.h"
#include "copy/sink/digests.h"
#include "qcow2/format/decoder_pool.h"
#include "qcow2/format/header.h"

namespace copy {

// Stands in front of another sink.  The digests are of what the source read as: before compression,
// and for clusters that go across as they are, of what they decode to.
class DigestSink final : public Sink {
 public:
  // `compression`: of the chunks that come; nothing: they have no compressed clusters.  `next` and
  // `digests`, whose granule divides the sink's clusters, outlive this.
  DigestSink(Sink& next, Digests& digests, std::optional<qcow2::CompressionType> compression)
      : next_(next), digests_(digests), compression_(compression) {}

  const qcow2::Geometry& geometry() const override { return next_.geometry(); }
  qcow2::Result<void> place(Chunk& chunk) override { return next_.place(chunk); }
  // Fails if a stream of the source cannot be decoded.
  qcow2::Result<void> write(const Chunk& chunk) override;
  qcow2::Result<void> finish() override { return next_.finish(); }

 private:
  qcow2::Result<void> add(const Chunk& chunk);
  qcow2::Result<void> add_decoded(const Chunk& chunk, const Chunk::Cluster& cluster,
                                  qcow2::GuestOffset at);

  Sink& next_;
  Digests& digests_;
  const std::optional<qcow2::CompressionType> compression_;
  qcow2::DecoderPool decoders_;
};

}  // namespace copy
