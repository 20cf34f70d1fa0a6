#include "qcow2/build/earlier_states.h"

#include <algorithm>

#include "base/byte_order.h"
#include "base/rounding.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kReadBackSlice = 4 << 10;      // bytes
constexpr uint64_t kReadBackCacheSize = 8 << 20;  // bytes

}  // namespace

EarlierStates::EarlierStates(const Storage& file, const Geometry& geometry,
                             std::span<const std::byte> active_l1)
    : file_(file),
      geometry_(geometry),
      active_l1_(active_l1),
      slice_size_(std::min(geometry.cluster_size(), kReadBackSlice)),
      cache_(kReadBackCacheSize) {}

Result<EarlierStates::Slice> EarlierStates::slice(HostOffset at) {
  return cache_.get(file_, HostOffset(round_down(at.value(), slice_size_)), slice_size_);
}

Result<HostOffset> EarlierStates::table(size_t state, uint64_t l1_index) {
  uint64_t entry = 0;
  if (state == 0) {
    if (l1_index * 8 < active_l1_.size()) entry = load_be64(&active_l1_[l1_index * 8]);
  } else if (const L1Table& l1 = tables_[state - 1]; l1_index < l1.entries) {
    const HostOffset at = l1.at + l1_index * 8;
    ASSIGN_OR_RETURN(const Slice bytes, slice(at));
    entry = load_be64(&(*bytes)[at.value() % slice_size_]);
  }
  return HostOffset(entry & kEntryOffsetMask);
}

Result<L2Entry> EarlierStates::entry(size_t state, ClusterIndex cluster) {
  ASSIGN_OR_RETURN(const HostOffset table, this->table(state, geometry_.l1_index(cluster)));
  if (table.value() == 0) return L2Entry{};
  const HostOffset at = table + geometry_.l2_index(cluster) * geometry_.l2_entry_size();
  ASSIGN_OR_RETURN(const Slice bytes, slice(at));
  const uint64_t index = at.value() % slice_size_ / geometry_.l2_entry_size();
  return load_l2_entry(*bytes, index, geometry_.extended_l2());
}

}  // namespace vc::qcow2
