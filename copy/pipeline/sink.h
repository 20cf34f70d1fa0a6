// Where guest bytes go to.
#pragma once

#include "base/result.h"
#include "copy/source/chunk.h"
#include "qcow2/format/geometry.h"

namespace copy {

class Sink {
 public:
  virtual ~Sink() = default;

  // What the pipeline counts in: its clusters are looked at for zeros, compressed, and placed.
  virtual const qcow2::Geometry& geometry() const = 0;

  // Takes chunks in guest order, one call at a time, and decides where their clusters go.  What
  // lies between two chunks reads as zeros.
  virtual qcow2::Result<void> place(Chunk& chunk) = 0;

  // Writes a chunk that has its places; from any thread.
  virtual qcow2::Result<void> write(const Chunk& chunk) = 0;

  // All chunks are written: writes what else there is to write.  Not after an error.
  virtual qcow2::Result<void> finish() = 0;
};

}  // namespace copy
