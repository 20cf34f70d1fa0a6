// A new QCOW2 image as the destination.
#pragma once

#include <memory>

#include "copy/pipeline/sink.h"
#include "qcow2/build/builder.h"
#include "storage/storage.h"

namespace copy {

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
  static qcow2::Result<std::unique_ptr<Qcow2Sink>> create(qcow2::Storage& out, qcow2::Storage* data,
                                                          const Options& options);

  const qcow2::Geometry& geometry() const override { return builder_->geometry(); }
  qcow2::Result<void> place(Chunk& chunk) override;
  qcow2::Result<void> write(const Chunk& chunk) override;
  qcow2::Result<void> finish() override;

  // Shrinks the disk to the size of the source, at the end of a source of unknown size. Must
  // precede finish().
  qcow2::Result<void> shrink_to(uint64_t size);

 private:
  Qcow2Sink(qcow2::Storage& data, std::unique_ptr<qcow2::Builder> builder, const Options& options)
      : data_(data), builder_(std::move(builder)), options_(options), size_(options.build.size) {}

  qcow2::Result<void> preallocate(qcow2::ClusterIndex first, qcow2::ClusterIndex end);

  qcow2::Storage& data_;  // storage for guest data
  const std::unique_ptr<qcow2::Builder> builder_;
  const Options options_;
  uint64_t size_;            // of the disk, bytes
  qcow2::ClusterIndex end_;  // end of the last placed chunk
};

}  // namespace copy
