// A destination of guest data.
#pragma once

#include "base/result.h"
#include "copy/source/chunk.h"
#include "qcow2/format/geometry.h"

namespace vc::copy {

class Sink {
 public:
  virtual ~Sink() = default;

  // Returns the cluster size of the pipeline: the unit of zero detection, compression and
  // placement.
  virtual const qcow2::Geometry& geometry() const = 0;

  // Decides the locations of a chunk's clusters. Calls come in guest order, one at a time. The gap
  // between two chunks reads as zeros.
  virtual Result<void> place(Chunk& chunk) = 0;

  // Writes a chunk that was placed. Thread-safe.
  virtual Result<void> write(const Chunk& chunk) = 0;

  // Writes the remaining data after all chunks are written. Must not be called after an error.
  virtual Result<void> finish() = 0;
};

}  // namespace vc::copy
