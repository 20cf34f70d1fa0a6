// A fresh QCOW2 image as the destination.
#pragma once

#include <memory>

#include "copy/sink.h"
#include "qcow2/builder.h"
#include "qcow2/storage.h"

namespace copy {

class Qcow2Sink final : public Sink {
 public:
  // `out` outlives the sink; it is neither flushed nor named.
  static qcow2::Result<std::unique_ptr<Qcow2Sink>> create(qcow2::Storage& out,
                                                          const qcow2::BuildOptions& options);

  const qcow2::Geometry& geometry() const override { return builder_->geometry(); }
  qcow2::Result<void> place(Chunk& chunk) override;
  qcow2::Result<void> write(const Chunk& chunk) override;
  qcow2::Result<void> finish() override;

 private:
  Qcow2Sink(qcow2::Storage& out, std::unique_ptr<qcow2::Builder> builder)
      : out_(out), builder_(std::move(builder)) {}

  qcow2::Storage& out_;
  const std::unique_ptr<qcow2::Builder> builder_;
};

}  // namespace copy
