// A disk as clients see it: the image's current disk, which may be writable, or a snapshot.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/result.h"
#include "plugin/write_path.h"
#include "qcow2/read/disk.h"

namespace vc::plugin {

// Thread-safe.
class ServedDisk {
 public:
  ServedDisk(qcow2::Disk disk, std::string description)
      : disk_(std::move(disk)), description_(std::move(description)) {}

  uint64_t size() const { return disk_.size(); }
  const std::string& description() const { return description_; }  // one line

  // Returns the disk for its map.
  const qcow2::Disk& disk() const {
    const WritePath* const path = active_.load(std::memory_order_acquire);
    return path ? path->writer().disk() : disk_;
  }

  Result<void> read(GuestOffset at, std::span<std::byte> to) const {
    const WritePath* const path = active_.load(std::memory_order_acquire);
    return path ? path->writer().read(at, to) : disk_.read(at, to);
  }

  // Returns nullptr if the disk is read-only.
  WritePath* write_path() const { return active_.load(std::memory_order_acquire); }

  // Routes all further requests through `path`. Must be called at most once.
  void set_write_path(std::unique_ptr<WritePath> path) {
    path_ = std::move(path);
    active_.store(path_.get(), std::memory_order_release);
  }

 private:
  qcow2::Disk disk_;
  std::string description_;
  std::unique_ptr<WritePath> path_;
  std::atomic<WritePath*> active_{nullptr};
};

}  // namespace vc::plugin
