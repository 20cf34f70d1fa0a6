// An image file under load, through the engine: one thread per request in flight.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/device.h"
#include "qcow2/write/disk_writer.h"

namespace bench {

class FileDevice final : public Device {
 public:
  static qcow2::Result<std::unique_ptr<Device>> open(const DeviceName& name, bool write,
                                                     copy::Stop& stop);

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  const char* format() const override { return qcow2::to_string(format_); }
  std::vector<std::string> files() const override { return files_; }
  qcow2::Result<std::optional<double>> hole_share(const Load& load) const override;
  void run(Schedule& schedule, const Load& load, Tally& tally) override;
  qcow2::Result<void> flush() override;
  qcow2::Result<void> close() override;

 private:
  FileDevice(std::string name, copy::Stop& stop) : name_(std::move(name)), stop_(stop) {}
  qcow2::Result<void> open_writers(const DeviceName& name, qcow2::OpenOptions options);
  qcow2::Result<void> read(qcow2::GuestOffset at, std::span<std::byte> to) const;
  qcow2::Result<void> write(qcow2::GuestOffset at, std::span<const std::byte> from);
  void work(Schedule& schedule, const Load& load, std::span<const std::byte> pattern, Tally& tally);

  const std::string name_;
  copy::Stop& stop_;
  uint64_t size_ = 0;  // bytes
  qcow2::Format format_ = qcow2::Format::kRaw;
  std::vector<std::string> files_;
  std::optional<qcow2::Chain> chain_;
  std::optional<qcow2::Disk> disk_;            // set for reading
  std::unique_ptr<qcow2::DiskWriter> writer_;  // set for writing a QCOW2 image
  std::shared_ptr<qcow2::FileStorage> raw_;    // set for writing a raw file
};

}  // namespace bench
