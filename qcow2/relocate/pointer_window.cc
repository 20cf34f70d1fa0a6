#include "qcow2/relocate/pointer_window.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "qcow2/format/l2_entry.h"

namespace vc::qcow2 {

uint64_t PointerWindow::rank_of(uint64_t word) const {
  if (!streams_ || (word & kEntryCompressed) == 0)
    return rank(geometry_.host_cluster_of(HostOffset(word & kEntryOffsetMask)));
  const auto stream = CompressedDescriptor::decode(word, geometry_.cluster_bits());
  if (end_ == End::kFirst) return rank(geometry_.host_cluster_of(stream.offset));
  return rank(geometry_.host_cluster_of(stream.offset + (stream.readable_bytes() - 1)));
}

HostOffset PointerWindow::target(const ClusterPointer& pointer) const {
  if (pointer.compressed(streams_))
    return CompressedDescriptor::decode(pointer.word, geometry_.cluster_bits()).offset;
  return HostOffset(pointer.word & kEntryOffsetMask);
}

Result<void> PointerWindow::add(const References::Pointer& pointer) {
  if (rank_of(pointer.word) < least_) return {};
  if (pointers_.size() >= 2 * most_) {
    RETURN_IF_ERROR(drop_lowest());
    if (rank_of(pointer.word) < least_) return {};
  }
  pointers_.push_back({pointer.at, pointer.word, pointer.times});
  return {};
}

Result<void> PointerWindow::drop_lowest() {
  const auto lowest_kept = pointers_.end() - static_cast<ptrdiff_t>(most_);
  std::nth_element(pointers_.begin(), lowest_kept, pointers_.end(),
                   [this](const ClusterPointer& a, const ClusterPointer& b) {
                     return rank_of(a.word) < rank_of(b.word);
                   });
  // All pointers to a cluster, or none of them.
  const uint64_t dropped = rank_of(lowest_kept->word);
  std::erase_if(pointers_, [&](const ClusterPointer& it) { return rank_of(it.word) <= dropped; });
  if (pointers_.empty())
    return fail(Error::unsupported(fmt::format(
        "more than {} entries refer to the cluster at {:#x}, too many to move it", most_,
        geometry_.start_of(HostCluster(end_ == End::kLast ? dropped : ~dropped)).value())));
  least_ = dropped + 1;
  return {};
}

Result<std::vector<ClusterPointer>> PointerWindow::take() {
  if (pointers_.size() > most_) RETURN_IF_ERROR(drop_lowest());
  std::sort(pointers_.begin(), pointers_.end(),
            [this](const ClusterPointer& a, const ClusterPointer& b) {
              return std::pair(target(a), a.at) < std::pair(target(b), b.at);
            });
  return std::move(pointers_);
}

Result<void> visit_windows(
    const References& references, const Geometry& geometry, HostCluster end, size_t most,
    const std::function<Result<bool>(const PointerWindow& window,
                                     std::span<const ClusterPointer> pointers)>& visit) {
  for (HostCluster begin(0); begin < end;) {
    PointerWindow window(geometry, PointerWindow::End::kFirst, end, most, true);
    const auto add = [&](const References::Pointer& it) -> Result<void> {
      const HostOffset target = window.target({it.at, it.word, it.times});
      if (geometry.host_cluster_of(target) < begin) return {};
      return window.add(it);
    };
    RETURN_IF_ERROR(references.visit_pointers(References::Level::kClusters, add));
    ASSIGN_OR_RETURN(const auto pointers, window.take());
    ASSIGN_OR_RETURN(const bool goes_on, visit(window, pointers));
    if (!goes_on) break;
    begin = window.bound();
  }
  return {};
}

}  // namespace vc::qcow2
