// A destination that discards all data, to measure the read speed of a source.
#pragma once

#include "copy/pipeline/sink.h"

namespace vc::copy {

class NullSink final : public Sink {
 public:
  explicit NullSink(const qcow2::Geometry& geometry) : geometry_(geometry) {}

  const qcow2::Geometry& geometry() const override { return geometry_; }
  Result<void> place(Chunk& /*chunk*/) override { return {}; }
  Result<void> write(const Chunk& /*chunk*/) override { return {}; }
  Result<void> finish() override { return {}; }

 private:
  const qcow2::Geometry geometry_;
};

}  // namespace vc::copy
