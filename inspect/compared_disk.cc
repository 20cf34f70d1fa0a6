#include "inspect/compared_disk.h"

namespace vc::inspect {

using qcow2::Extent;

Result<ComparedDisk> ComparedDisk::open(const copy::SourceOptions& options, const Stop& stop) {
  if (options.command.empty() && options.name == "-")
    return fail(Error::invalid("standard input: a pipe cannot be compared: give a path"));
  ASSIGN_OR_RETURN(auto source, copy::open_source(options, stop));
  ComparedDisk disk(std::move(source));
  for (size_t i = 0; i < disk.lanes(); ++i) disk.lines_.push_back(std::make_unique<Mutex>());
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
    std::optional<MutexLock> lock;
    if (!lines_.empty()) lock.emplace(*lines_.front());
    RETURN_IF_ERROR(source_->map(GuestOffset(at), size() - at, ahead_));
  }
  Extent extent = ahead_[ahead_at_];
  const uint64_t distance = at - extent.guest.value();
  extent.guest += distance;
  extent.length -= distance;
  if (extent.kind == qcow2::ExtentKind::kData || extent.preallocated) extent.host += distance;
  return extent;
}

bool ComparedDisk::can_read_together(const Extent& extent, const Extent& next) const {
  if (extent.kind != next.kind || extent.depth != next.depth) return false;
  if (extent.kind != qcow2::ExtentKind::kCompressed)
    return next.host == extent.host + extent.length;
  const auto made = source_->compression(extent);
  return made &&
         extent.guest.value() / made->cluster_size == next.guest.value() / made->cluster_size;
}

Result<void> ComparedDisk::read(const Extent& extent, size_t lane, std::span<std::byte> to) {
  if (lines_.empty()) return source_->read_extent(0, extent, to);
  const size_t line = lane % lines_.size();
  // The other disk may permit more threads: several of them share a connection here.
  const MutexLock lock(*lines_[line]);
  return source_->read_extent(line, extent, to);
}

}  // namespace vc::inspect
