// A fresh QCOW2 image as the destination.
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
    // Clusters without data get a place in the file, too.
    bool preallocate = false;
    qcow2::Builder::Gaps gaps = qcow2::Builder::Gaps::kLeave;
    // Only the header and the length of the file are of use: what is preallocated is not counted
    // cluster by cluster.
    bool dry = false;
  };

  // `out`, and `data` (where guest data goes if the options name an external data file, else
  // nullptr), outlive the sink; they are neither flushed nor named by it.
  static qcow2::Result<std::unique_ptr<Qcow2Sink>> create(qcow2::Storage& out, qcow2::Storage* data,
                                                          const Options& options);

  const qcow2::Geometry& geometry() const override { return builder_->geometry(); }
  qcow2::Result<void> place(Chunk& chunk) override;
  qcow2::Result<void> write(const Chunk& chunk) override;
  qcow2::Result<void> finish() override;

  // The source, whose size was not known, has come to its end here: before finish ().
  qcow2::Result<void> shrink_to(uint64_t size);

 private:
  Qcow2Sink(qcow2::Storage& data, std::unique_ptr<qcow2::Builder> builder, const Options& options)
      : data_(data), builder_(std::move(builder)), options_(options), size_(options.build.size) {}

  qcow2::Result<void> preallocate(qcow2::ClusterIndex first, qcow2::ClusterIndex end);

  qcow2::Storage& data_;  // of the guest
  const std::unique_ptr<qcow2::Builder> builder_;
  const Options options_;
  uint64_t size_;            // of the disk, bytes
  qcow2::ClusterIndex end_;  // of the chunk that was placed last
};

}  // namespace copy
