// A raw disk as the destination: guest offsets equal file offsets.
#pragma once

#include <memory>
#include <utility>

#include "copy/pipeline/sink.h"
#include "copy/source/cloning.h"
#include "storage/storage.h"

namespace vc::copy {

class RawSink final : public Sink {
 public:
  struct Options {
    uint64_t size = 0;  // of the disk, bytes; the storage has this size or gets it
    // Zeros become holes in units of this cluster size.
    qcow2::Geometry geometry;
    // The destination reads as zeros: ranges of zeros are not written.
    bool zeroed = false;
  };

  // `out` must outlive the sink.
  RawSink(Storage& out, const Options& options) : out_(out), options_(options) {}

  // Sets the size of the disk, at the end of a source of unknown size. Must precede finish().
  void set_size(uint64_t size) { options_.size = size; }

  // Clones into the storage, which must be `zeroed`. Must precede the first write().
  void set_cloning(std::shared_ptr<Cloning> cloning) { cloning_ = std::move(cloning); }

  const qcow2::Geometry& geometry() const override { return options_.geometry; }
  Result<void> place(Chunk& chunk) override;
  Result<void> write(const Chunk& chunk) override;
  Result<void> finish() override;

 private:
  Result<void> zero(uint64_t begin, uint64_t end);

  Storage& out_;
  Options options_;
  GuestOffset end_;                   // end of the last placed chunk
  std::shared_ptr<Cloning> cloning_;  // nullptr: nothing is cloned
};

}  // namespace vc::copy
