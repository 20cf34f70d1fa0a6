// A raw file as a layer: all data or zeros; the layer below is never visible.
#pragma once

#include <memory>

#include "qcow2/format/format_probe.h"
#include "qcow2/read/layer.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class RawLayer final : public Layer {
 public:
  static Result<std::shared_ptr<Layer>> open(std::shared_ptr<Storage> storage);
  // The disk of a file with a LUKS header: `disk` reads it decrypted; its data begins at `payload`
  // in the file.
  static Result<std::shared_ptr<Layer>> open_luks(std::shared_ptr<Storage> disk,
                                                  HostOffset payload);

  const std::string& name() const override { return storage_->name(); }
  const char* format() const override { return to_string(format_); }
  uint64_t size() const override { return size_; }
  std::optional<StreamFormat> compression() const override { return std::nullopt; }
  Result<Extent> map(GuestOffset at, uint64_t limit) const override;
  Result<void> read(const Extent& extent, GuestOffset at, std::span<std::byte> to) const override;
  Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const override;

 private:
  RawLayer(std::shared_ptr<Storage> storage, uint64_t size, Format format, HostOffset begin)
      : storage_(std::move(storage)), size_(size), format_(format), begin_(begin) {}

  std::shared_ptr<Storage> storage_;
  uint64_t size_;  // bytes, when the layer was created
  const Format format_;
  const HostOffset begin_;  // of the disk in the file
};

}  // namespace vc::qcow2
