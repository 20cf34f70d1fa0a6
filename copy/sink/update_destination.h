// An existing image as the destination of an update: changed data is written, the rest stays.
#pragma once

#include <memory>
#include <string>

#include "copy/sink/destination.h"
#include "qcow2/read/chain.h"
#include "qcow2/write/disk_writer.h"

namespace vc::copy {

class UpdateDestination final : public Destination {
 public:
  // Opens a QCOW2 image with a disk of `size` bytes. No other process may use the image.
  static Result<std::unique_ptr<UpdateDestination>> open(
      const std::string& path, uint64_t size, std::shared_ptr<const crypto::KeyRing> keys);

  Sink& sink() override { return *sink_; }
  Result<void> set_size(uint64_t /*size*/) override { return {}; }
  Result<void> write_out() override { return writer_->close(); }
  Result<void> complete() override { return {}; }
  Result<std::optional<FileSize>> measure() override;

 private:
  class UpdateSink;
  explicit UpdateDestination(qcow2::Chain chain) : chain_(std::move(chain)) {}

  qcow2::Chain chain_;
  std::unique_ptr<qcow2::DiskWriter> writer_;
  std::unique_ptr<Sink> sink_;
};

}  // namespace vc::copy
