// A new QCOW2 image as the destination.
#pragma once

#include <memory>

#include "copy/pipeline/sink.h"
#include "copy/source/cloning.h"
#include "qcow2/build/builder.h"
#include "storage/storage.h"

namespace vc::copy {

class Qcow2Sink final : public Sink {
 public:
  struct Options {
    qcow2::BuildOptions build;
    // Allocates clusters without data, too.
    bool preallocate = false;
    qcow2::Builder::Gaps gaps = qcow2::Builder::Gaps::kLeave;
    // Dry run: only the header and the file length matter, so preallocated clusters are not visited
    // one by one.
    bool dry = false;
  };

  // `out` and `data` must outlive the sink. `data` is the external data file if the options name
  // one, else nullptr. The sink neither flushes nor names them.
  static Result<std::unique_ptr<Qcow2Sink>> create(Storage& out, Storage* data,
                                                   const Options& options);

  const qcow2::Geometry& geometry() const override { return builder_->geometry(); }
  Result<void> place(Chunk& chunk) override;
  Result<void> write(const Chunk& chunk) override;
  Result<void> finish() override;

  // Prepares for the snapshots that follow the disk; see qcow2::Builder. Must precede the first
  // chunk.
  Result<void> carry(qcow2::Sharing& sharing) { return builder_->carry(sharing); }
  // Begins the next snapshot, and its VM state. The chunks that follow are of that disk or state.
  Result<void> begin_snapshot(const qcow2::Snapshot& snapshot);
  Result<void> begin_vm_state() { return builder_->begin_vm_state(); }

  // Shrinks the disk to the size of the source, at the end of a source of unknown size. Must
  // precede finish().
  Result<void> shrink_to(uint64_t size);

  // Clones into the storage of the guest data. Must precede the first write().
  void set_cloning(std::shared_ptr<Cloning> cloning) { cloning_ = std::move(cloning); }

 private:
  Qcow2Sink(std::shared_ptr<Storage> data, std::unique_ptr<qcow2::Builder> builder,
            const Options& options)
      : data_(std::move(data)),
        builder_(std::move(builder)),
        options_(options),
        size_(options.build.size) {}

  Result<void> preallocate(ClusterIndex first, ClusterIndex end);
  Result<void> end_disk();

  const std::shared_ptr<Storage>
      data_;  // storage for guest data; encrypts it if the image is encrypted
  const std::unique_ptr<qcow2::Builder> builder_;
  const Options options_;
  std::shared_ptr<Cloning> cloning_;          // nullptr: nothing is cloned
  uint64_t size_;                             // of the disk, bytes
  ClusterIndex end_;                          // end of the last placed chunk
  bool preallocates_ = options_.preallocate;  // in the present state
};

}  // namespace vc::copy
