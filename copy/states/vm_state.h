// The VM state of an internal snapshot: RAM and devices of the machine, past the end of the disk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "copy/source/cluster_reader.h"
#include "copy/source/source.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"

namespace vc::copy {

// A VM state as a disk.
class VmStateSource final : public Source {
 public:
  static Result<std::unique_ptr<VmStateSource>> open(const std::shared_ptr<qcow2::Image>& image,
                                                     const qcow2::Snapshot& snapshot);

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return disk_.size(); }
  std::optional<uint64_t> cluster_size() const override { return cluster_size_; }
  Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) override;
  Result<void> read(GuestOffset at, std::span<std::byte> to) override { return disk_.read(at, to); }
  Result<void> load(Chunk& chunk, ClusterReader& reader) override {
    return reader.read(disk_, {&file_, 1}, false, chunk);
  }
  const FileStorage* plain_file(uint32_t depth) const override {
    return depth == 0 ? file_ : nullptr;
  }
  bool is_cheap_to_reread() const override { return true; }

 private:
  VmStateSource(std::string name, uint64_t cluster_size, qcow2::Disk disk, const FileStorage* file)
      : name_(std::move(name)), cluster_size_(cluster_size), disk_(std::move(disk)), file_(file) {}

  const std::string name_;
  const uint64_t cluster_size_;
  const qcow2::Disk disk_;
  const FileStorage* const file_;  // see plain_file()
};

}  // namespace vc::copy
