// A raw disk as the destination: every byte where the guest has it.
#pragma once

#include "copy/pipeline/sink.h"
#include "storage/storage.h"

namespace copy {

class RawSink final : public Sink {
 public:
  struct Options {
    uint64_t size = 0;  // of the disk, bytes; the storage is as large, or becomes it
    // Zeros of whole clusters of this geometry become holes.
    qcow2::Geometry geometry;
    // The destination reads as zeros: nothing is written where the source has none but zeros.
    bool zeroed = false;
  };

  // `out` outlives the sink.
  RawSink(qcow2::Storage& out, const Options& options) : out_(out), options_(options) {}

  // The source, whose size was not known, has come to its end here: before finish ().
  void set_size(uint64_t size) { options_.size = size; }

  const qcow2::Geometry& geometry() const override { return options_.geometry; }
  qcow2::Result<void> place(Chunk& chunk) override;
  qcow2::Result<void> write(const Chunk& chunk) override;
  qcow2::Result<void> finish() override;

 private:
  qcow2::Result<void> zero(uint64_t begin, uint64_t end);

  qcow2::Storage& out_;
  Options options_;
  qcow2::GuestOffset end_;  // of the chunk that was placed last
};

}  // namespace copy
