#include "qcow2/build/cluster_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "base/byte_order.h"
#include "qcow2/format/header.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

// The maximum distance of a gap for streams from the end of the file, bytes.
constexpr uint64_t kLeftReach = 4 << 20;

void clear(AlignedBuffer& buffer) {
  std::memset(buffer.data(), 0, buffer.size());
}

}  // namespace

ClusterLayout::ClusterLayout(Storage& out, const BuildOptions& options, bool zero_gaps)
    : out_(out),
      geometry_(options.cluster_bits, options.extended_l2),
      refcount_order_(options.refcount_order),
      zero_gaps_(zero_gaps),
      per_block_(refcounts_per_block(options.cluster_bits, options.refcount_order)),
      refcounts_(geometry_.cluster_size()) {
  clear(refcounts_);
  count(0);  // for the header
}

uint64_t ClusterLayout::get_count(uint64_t cluster) const {
  return get_refcount(refcounts_.span(), cluster % per_block_, refcount_order_);
}

bool ClusterLayout::can_count(uint64_t cluster, uint64_t times) const {
  const uint64_t most = max_refcount(refcount_order_) / (spare_ ? 2 : 1);
  return times <= most && get_count(cluster) <= most - times;
}

void ClusterLayout::count(uint64_t cluster, uint64_t times) {
  set_refcount(refcounts_.span(), cluster % per_block_, refcount_order_,
               get_count(cluster) + times);
}

Result<void> ClusterLayout::write_cluster(uint64_t cluster, const AlignedBuffer& bytes) {
  return out_.write(geometry_.start_of(HostCluster(cluster)), bytes.span());
}

// Only the reserved cluster is left: the refcounts of all clusters before it are final.
Result<void> ClusterLayout::close_range() {
  RETURN_IF_ERROR(end_left());
  const uint64_t cluster = reserved();
  count(cluster);
  RETURN_IF_ERROR(write_block(cluster));
  next_ = cluster + 1;
  return {};
}

// Writes the refcounts of the current range to `cluster`, and goes on to the next range.
Result<void> ClusterLayout::write_block(uint64_t cluster) {
  RETURN_IF_ERROR(write_cluster(cluster, refcounts_));
  refcount_table_.push_back(geometry_.start_of(HostCluster(cluster)).value());
  clear(refcounts_);
  ++range_;
  return {};
}

// Handles the gap from `begin` to the end of the cluster, which will not be written.
Result<void> ClusterLayout::leave_gap(uint64_t begin) {
  const uint64_t cluster_size = geometry_.cluster_size();
  if (begin == 0 || !zero_gaps_) return {};
  return out_.write_zeroes(HostOffset(begin), cluster_size - geometry_.offset_in_cluster(begin));
}

Result<void> ClusterLayout::end_left() {
  return leave_gap(std::exchange(left_, 0));
}

// Ends the current stream cluster: the next stream starts a new cluster.
Result<void> ClusterLayout::end_packing() {
  return leave_gap(std::exchange(pack_, 0));
}

Result<uint64_t> ClusterLayout::take() {
  if (pack_ != 0) {
    RETURN_IF_ERROR(end_left());
    left_ = std::exchange(pack_, 0);
    left_until_ = next_ + std::max<uint64_t>(kLeftReach >> geometry_.cluster_bits(), 1);
  }
  if (next_ >= left_until_) RETURN_IF_ERROR(end_left());
  if (next_ == reserved()) RETURN_IF_ERROR(close_range());
  return next_++;
}

uint64_t ClusterLayout::take_more(uint64_t most) {
  const uint64_t taken = std::min(most, reserved() - next_);
  next_ += taken;
  return taken;
}

Result<uint64_t> ClusterLayout::place_stream(uint64_t length, uint64_t times) {
  const uint64_t cluster_size = geometry_.cluster_size();
  // Continues after the previous stream, if the refcount of that cluster can grow enough, and if
  // the next cluster is free for a crossing stream.
  bool crosses = false;
  if (pack_ != 0) {
    crosses = geometry_.offset_in_cluster(pack_) + length > cluster_size;
    if (!can_count(next_ - 1, times) || (crosses && next_ == reserved()))
      RETURN_IF_ERROR(end_packing());
  }
  uint64_t at = pack_;
  if (at == 0 && geometry_.offset_in_cluster(left_) + length <= cluster_size && left_ != 0 &&
      can_count(left_ >> geometry_.cluster_bits(), times)) {
    at = left_;
    count(at >> geometry_.cluster_bits(), times);
    left_ = geometry_.offset_in_cluster(at + length) == 0 ? 0 : at + length;
    return at;
  }
  if (at == 0) {
    ASSIGN_OR_RETURN(const uint64_t fresh, take());
    at = geometry_.start_of(HostCluster(fresh)).value();
    crosses = false;
  }
  count(next_ - 1, times);
  if (crosses) {
    ++next_;
    count(next_ - 1, times);
  }
  if (at >> CompressedDescriptor::offset_bits(geometry_.cluster_bits()) != 0)
    return fail(
        Error::invalid(fmt::format("{}: compressed data at {:#x}: too far for clusters of {} bytes",
                                   out_.name(), at, cluster_size)));
  pack_ = geometry_.offset_in_cluster(at + length) == 0 ? 0 : at + length;
  return at;
}

Result<uint64_t> ClusterLayout::place_table(uint64_t clusters) {
  RETURN_IF_ERROR(end_packing());
  RETURN_IF_ERROR(end_left());
  if (next_ == reserved()) RETURN_IF_ERROR(close_range());
  const uint64_t first = next_;
  uint64_t blocks = 0;  // of the ranges that end within the table, or within these blocks
  while ((first + clusters + blocks) / per_block_ - range_ > blocks) ++blocks;
  const uint64_t end = first + clusters + blocks;
  for (uint64_t block = first + clusters; block < end; ++block) {
    for (; next_ < (range_ + 1) * per_block_; ++next_) count(next_);
    RETURN_IF_ERROR(write_block(block));
  }
  for (; next_ < end; ++next_) count(next_);
  return first;
}

Result<TailLayout> ClusterLayout::write_tail(std::span<const std::byte> l1) {
  RETURN_IF_ERROR(end_packing());
  RETURN_IF_ERROR(end_left());
  const uint64_t cluster_size = geometry_.cluster_size();
  const auto tail =
      TailLayout::plan(next_, l1.size() / cluster_size, range_, per_block_, cluster_size);
  // The builder ensures this.
  assert(tail.table_clusters() * cluster_size <= Limits::kRefcountTableBytes);
  RETURN_IF_ERROR(out_.write(geometry_.start_of(HostCluster(tail.l1)), l1));

  // Completes the open range, whose refcounts so far are in refcounts_. Then writes the ranges that
  // contain only the tail.
  uint64_t at = next_;
  for (uint64_t cluster = tail.blocks; cluster < tail.end; ++cluster) {
    const uint64_t range_end = std::min((range_ + 1) * per_block_, tail.end);
    for (; at < range_end; ++at) count(at);
    RETURN_IF_ERROR(write_block(cluster));
  }

  AlignedBuffer table(tail.table_clusters() * cluster_size);
  clear(table);
  for (uint64_t i = 0; i < refcount_table_.size(); ++i)
    store_be64(table.data() + i * 8, refcount_table_[i]);
  RETURN_IF_ERROR(write_cluster(tail.table, table));

  return tail;
}

}  // namespace vc::qcow2
