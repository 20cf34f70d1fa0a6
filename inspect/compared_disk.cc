#include "inspect/compared_disk.h"

#include <cstring>

#include "base/aligned_buffer.h"

namespace vc::inspect {

using qcow2::Extent;

namespace {

// Returns the file that holds the plain and compressed clusters of a layer.
std::optional<FileStorage::Identity> file_of_layer(const qcow2::Chain& chain,
                                                   const qcow2::Layer& layer) {
  if (const Storage* const storage = layer.cluster_storage()) {
    const auto* const file = dynamic_cast<const FileStorage*>(storage);
    return file ? std::optional(file->identity()) : std::nullopt;
  }
  for (const auto& file : chain.files())
    if (file->name() == layer.name()) return file->identity();
  return std::nullopt;
}

}  // namespace

Result<ComparedDisk> ComparedDisk::open(const copy::AnySource::Options& options, const Stop& stop) {
  if (options.command.empty() && options.name == "-")
    return fail(Error::invalid("standard input: a pipe cannot be compared: give a path"));
  ASSIGN_OR_RETURN(copy::AnySource source, copy::AnySource::open(options, stop));
  ComparedDisk disk(std::move(source));
  if (const copy::LocalSource* const local = disk.source_.local())
    for (const auto& layer : local->disk().layers())
      disk.files_.push_back(file_of_layer(local->chain(), *layer));
  for (size_t i = 0; disk.source_.nbd() && i < disk.source_.nbd()->connections(); ++i)
    disk.lines_.push_back(std::make_unique<std::mutex>());
  return disk;
}

Result<Extent> ComparedDisk::extent_at(uint64_t at, uint64_t end) {
  if (at >= size()) {
    Extent nothing;
    nothing.guest = GuestOffset(at);
    nothing.length = end - at;
    return nothing;
  }
  while (ahead_at_ < ahead_.size() && ahead_[ahead_at_].end().value() <= at) ++ahead_at_;
  if (ahead_at_ == ahead_.size()) {
    ahead_.clear();
    ahead_at_ = 0;
    // A server without a separate session for block status uses its first session, on which another
    // thread may be reading.
    std::unique_lock<std::mutex> lock;
    if (!lines_.empty()) lock = std::unique_lock(*lines_.front());
    RETURN_IF_ERROR(source_.get().map(GuestOffset(at), size() - at, ahead_));
  }
  Extent extent = ahead_[ahead_at_];
  const uint64_t behind = at - extent.guest.value();
  extent.guest += behind;
  extent.length -= behind;
  if (extent.kind == qcow2::ExtentKind::kData || extent.preallocated) extent.host += behind;
  return extent;
}

bool ComparedDisk::can_read_together(const Extent& extent, const Extent& next) const {
  if (extent.kind != next.kind || extent.depth != next.depth) return false;
  if (extent.kind != qcow2::ExtentKind::kCompressed)
    return next.host == extent.host + extent.length;
  const copy::LocalSource* const local = source_.local();
  const auto made = local ? local->disk().layers()[extent.depth]->compression() : std::nullopt;
  return made &&
         extent.guest.value() / made->cluster_size == next.guest.value() / made->cluster_size;
}

Result<void> ComparedDisk::read(const Extent& extent, size_t lane, std::span<std::byte> to) {
  if (const copy::LocalSource* const local = source_.local())
    return local->disk().read_extent(extent, extent.guest, to);
  const size_t line = lane % lines_.size();
  const std::lock_guard lock(*lines_[line]);
  // The extent may be cut at the other disk's boundaries, which need not be aligned here.
  const uint64_t unit = source_.get().alignment();
  const uint64_t before = extent.guest.value() % unit;
  if (before == 0 && to.size() % unit == 0) return source_.nbd()->read_on(line, extent.guest, to);
  AlignedBuffer whole((before + to.size() + unit - 1) / unit * unit);
  RETURN_IF_ERROR(source_.nbd()->read_on(line, extent.guest - before, whole.span()));
  std::memcpy(to.data(), whole.data() + before, to.size());
  return {};
}

std::optional<FileStorage::Identity> ComparedDisk::file_of(const Extent& extent) const {
  return extent.depth < files_.size() ? files_[extent.depth] : std::nullopt;
}

}  // namespace vc::inspect
