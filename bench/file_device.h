// An image file under load, through the engine: one thread per request in flight.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/device.h"
#include "qcow2/write/disk_writer.h"

namespace vc::bench {

class FileDevice final : public Device {
 public:
  static Result<std::unique_ptr<Device>> open(const DeviceName& name, bool write, Stop& stop);

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  const char* format() const override { return qcow2::to_string(format_); }
  std::vector<std::string> files() const override { return files_; }
  Result<std::optional<double>> hole_share(const Load& load) const override;
  void run(Schedule& schedule, const Load& load, Tally& tally) override;
  Result<void> flush() override;
  Result<void> close() override;

 private:
  FileDevice(std::string name, Stop& stop) : name_(std::move(name)), stop_(stop) {}
  Result<void> open_writers(const DeviceName& name, qcow2::OpenOptions options);
  Result<void> read(GuestOffset at, std::span<std::byte> to) const;
  Result<void> write(GuestOffset at, std::span<const std::byte> from);
  void work(Schedule& schedule, const Load& load, std::span<const std::byte> pattern, Tally& tally);

  const std::string name_;
  Stop& stop_;
  uint64_t size_ = 0;  // bytes
  qcow2::Format format_ = qcow2::Format::kRaw;
  std::vector<std::string> files_;
  std::optional<qcow2::Chain> chain_;
  std::optional<qcow2::Disk> disk_;            // set for reading
  std::unique_ptr<qcow2::DiskWriter> writer_;  // set for writing a QCOW2 image
  std::shared_ptr<FileStorage> raw_;           // set for writing a raw file
};

}  // namespace vc::bench
