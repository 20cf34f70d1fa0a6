#include "copy/states/vm_state.h"

#include <fmt/format.h>

#include <utility>

#include "qcow2/read/qcow2_layer.h"

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;
using qcow2::Geometry;

namespace {

constexpr size_t kVmStateExtentsAtOnce = 4096;
constexpr uint64_t kEndOfOffsets = INT64_MAX;

// The part of a snapshot's layer from `begin` on.
class VmStateLayer final : public qcow2::Layer {
 public:
  VmStateLayer(std::shared_ptr<qcow2::Layer> whole, uint64_t begin)
      : whole_(std::move(whole)), begin_(begin) {}

  const std::string& name() const override { return whole_->name(); }
  const char* format() const override { return whole_->format(); }
  uint64_t size() const override { return whole_->size() - begin_; }
  std::optional<StreamFormat> compression() const override { return whole_->compression(); }

  // A backing file has no part of a VM state: what is not allocated reads as zeros.
  Result<Extent> map(GuestOffset at, uint64_t limit) const override {
    ASSIGN_OR_RETURN(Extent extent, whole_->map(at + begin_, limit));
    extent.guest = at;
    if (extent.kind == ExtentKind::kUnallocated) extent.kind = ExtentKind::kZero;
    return extent;
  }
  Result<void> read(const Extent& extent, GuestOffset at, std::span<std::byte> to) const override {
    Extent moved = extent;
    moved.guest += begin_;
    return whole_->read(moved, at + begin_, to);
  }
  Result<size_t> read_stream(const Extent& extent, std::span<std::byte> to) const override {
    return whole_->read_stream(extent, to);
  }

 private:
  const std::shared_ptr<qcow2::Layer> whole_;
  const uint64_t begin_;  // guest offset, bytes
};

}  // namespace

Result<std::unique_ptr<VmStateSource>> VmStateSource::open(
    const std::shared_ptr<qcow2::Image>& image, const qcow2::Snapshot& snapshot) {
  const std::string name = fmt::format("VM state of snapshot '{}'", snapshot.name);
  const Geometry& geometry = image->geometry();
  const uint64_t begin = geometry.l1_entries_for(snapshot.disk_size) * geometry.l2_reach();
  if (begin > kEndOfOffsets || snapshot.vm_state_size > kEndOfOffsets - begin)
    return fail(Error::corrupt(
        fmt::format("{}: {}: {} bytes are too many", image->name(), name, snapshot.vm_state_size)));
  ASSIGN_OR_RETURN(auto whole, with_context(qcow2::Qcow2Layer::open(image, snapshot.l1_table,
                                                                    snapshot.l1_entries,
                                                                    begin + snapshot.vm_state_size),
                                            name));
  qcow2::Disk disk({std::make_shared<VmStateLayer>(std::move(whole), begin)});
  const auto* const file =
      image->encryption() ? nullptr : dynamic_cast<const FileStorage*>(&image->data_storage());
  return std::unique_ptr<VmStateSource>(
      new VmStateSource(name, geometry.cluster_size(), std::move(disk), file));
}

Result<void> VmStateSource::map(GuestOffset at, uint64_t length, std::vector<Extent>& out) {
  return disk_.map(at, length, out, kVmStateExtentsAtOnce);
}

}  // namespace vc::copy
