// A disk as clients see it: the image's own, which may be written, or a snapshot's.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "qcow2/disk.h"
#include "qcow2/disk_writer.h"
#include "qcow2/result.h"

namespace plugin {

// Thread-safe.
class ServedDisk {
 public:
  ServedDisk(qcow2::Disk disk, std::string description)
      : disk_(std::move(disk)), description_(std::move(description)) {}

  uint64_t size() const { return disk_.size(); }
  const std::string& description() const { return description_; }  // one line, for people

  // For mapping.
  const qcow2::Disk& disk() const {
    const qcow2::DiskWriter* const writer = active_.load(std::memory_order_acquire);
    return writer ? writer->disk() : disk_;
  }

  qcow2::Result<void> read(qcow2::GuestOffset at, std::span<std::byte> to) const {
    const qcow2::DiskWriter* const writer = active_.load(std::memory_order_acquire);
    return writer ? writer->read(at, to) : disk_.read(at, to);
  }

  // nullptr: it is not written.
  qcow2::DiskWriter* writer() const { return active_.load(std::memory_order_acquire); }

  // From now on all go through `writer`.  Once.
  void set_writer(std::unique_ptr<qcow2::DiskWriter> writer) {
    writer_ = std::move(writer);
    active_.store(writer_.get(), std::memory_order_release);
  }

 private:
  qcow2::Disk disk_;
  std::string description_;
  std::unique_ptr<qcow2::DiskWriter> writer_;
  std::atomic<qcow2::DiskWriter*> active_{nullptr};
};

}  // namespace plugin
