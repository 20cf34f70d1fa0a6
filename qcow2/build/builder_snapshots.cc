// The snapshots of a new image.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/byte_order.h"
#include "qcow2/build/builder_impl.h"

namespace vc::qcow2 {

Result<void> Builder::Impl::carry(Sharing& sharing) {
  if (!options_.data_file.empty())
    return fail(Error::invalid("an image with an external data file cannot have snapshots"));
  sharing_ = &sharing;
  clusters_.leave_spare_counts();
  earlier_.emplace(out_, geometry_, std::as_const(l1_).span().first(l1_entries_ * 8));
  return {};
}

Result<void> Builder::Impl::begin_snapshot(const Snapshot& snapshot) {
  if (!sharing_) return fail(Error::invalid("a snapshot without carry()"));
  RETURN_IF_ERROR(end_state());
  snapshots_.push_back(snapshot);
  ++state_;
  const uint64_t vm_tables =
      divide_up(geometry_.clusters_for(snapshot.vm_state_size), geometry_.l2_entries());
  const uint64_t entries =
      std::max<uint64_t>(geometry_.l1_entries_for(snapshot.disk_size) + vm_tables, 1);
  if (entries > Limits::kL1Bytes / 8)
    return fail(Error::invalid(fmt::format(
        "snapshot '{}' is too large for clusters of {} bytes: {} at most, with its VM "
        "state",
        snapshot.name, geometry_.cluster_size(), Limits::kL1Bytes / 8 * geometry_.l2_reach())));
  snapshots_.back().l1_entries = static_cast<uint32_t>(entries);
  snapshot_l1_ = AlignedBuffer(l1_clusters(geometry_, entries) * geometry_.cluster_size());
  clear(snapshot_l1_);
  l1_index_ = 0;
  next_guest_ = 0;
  base_ = 0;
  end_ = geometry_.clusters_for(snapshot.disk_size);
  return {};
}

// The VM state begins at the guest offset of the first L1 entry past the disk.
Result<void> Builder::Impl::begin_vm_state() {
  RETURN_IF_ERROR(inherit_to(end_));
  RETURN_IF_ERROR(write_l2());
  in_vm_state_ = true;
  const Snapshot& snapshot = snapshots_.back();
  l1_index_ = geometry_.l1_entries_for(snapshot.disk_size);
  base_ = l1_index_ * geometry_.l2_entries();
  next_guest_ = base_;
  end_ = base_ + geometry_.clusters_for(snapshot.vm_state_size);
  return {};
}

// Adds the entries of clusters up to `end` that earlier states store.
Result<void> Builder::Impl::inherit_to(uint64_t end) {
  while (shares() && next_guest_ < end) {
    const ClusterIndex cluster(next_guest_);
    const uint64_t l1_index = geometry_.l1_index(cluster);
    const uint64_t table_end = std::min(end_, (l1_index + 1) * geometry_.l2_entries());
    if (geometry_.l2_index(cluster) == 0) {
      ASSIGN_OR_RETURN(const size_t first, sharing_->first_with_table(state_, l1_index));
      if (first != state_) {
        ASSIGN_OR_RETURN(const HostOffset table, earlier_->table(first, l1_index));
        store_be64(snapshot_l1_.data() + l1_index * 8, table.value());
        next_guest_ = table_end;
        continue;
      }
    }
    for (; next_guest_ < std::min(end, table_end); ++next_guest_)
      RETURN_IF_ERROR(inherit_cluster(ClusterIndex(next_guest_)));
  }
  return {};
}

Result<void> Builder::Impl::inherit_cluster(ClusterIndex cluster) {
  ASSIGN_OR_RETURN(const size_t first, sharing_->first_with(state_, cluster));
  if (first == state_) return {};
  ASSIGN_OR_RETURN(const L2Entry stored, earlier_->entry(first, cluster));
  const L2Entry entry = shared_entry(stored);
  if (entry.word == 0 && entry.bitmap == 0) return {};
  RETURN_IF_ERROR(switch_to(geometry_.l1_index(cluster)));
  set_entry(cluster, entry.word, entry.bitmap);
  return {};
}

// Writes the last L2 table, and the L1 table of a snapshot.
Result<void> Builder::Impl::end_state() {
  if (state_ > 0) RETURN_IF_ERROR(inherit_to(end_));
  RETURN_IF_ERROR(write_l2());
  if (state_ == 0) return {};
  in_vm_state_ = false;
  const uint64_t clusters = snapshot_l1_.size() / geometry_.cluster_size();
  // The refcount blocks within the table follow it.
  RETURN_IF_ERROR(check_length(2 * clusters + 2));
  ASSIGN_OR_RETURN(const uint64_t first, clusters_.place_table(clusters));
  Snapshot& snapshot = snapshots_.back();
  snapshot.l1_table = geometry_.start_of(HostCluster(first));
  earlier_->add(snapshot.l1_table, snapshot.l1_entries);
  return out_.write(snapshot.l1_table, snapshot_l1_.span());
}

Result<void> Builder::Impl::write_snapshot_table() {
  if (snapshots_.empty()) return {};
  const auto encoded = encode_snapshot_table(snapshots_, options_.version);
  if (encoded.size() > Limits::kSnapshotTableBytes)
    return fail(
        Error::invalid(fmt::format("{}: the snapshot table would have {} bytes: {} at most",
                                   out_.name(), encoded.size(), Limits::kSnapshotTableBytes)));
  const uint64_t clusters = divide_up(encoded.size(), geometry_.cluster_size());
  RETURN_IF_ERROR(check_length(2 * clusters + 2));
  ASSIGN_OR_RETURN(const uint64_t first, clusters_.place_table(clusters));
  AlignedBuffer bytes(clusters * geometry_.cluster_size());
  clear(bytes);
  std::copy(encoded.begin(), encoded.end(), bytes.data());
  header_.snapshot_table = geometry_.start_of(HostCluster(first));
  header_.snapshot_count = static_cast<uint32_t>(snapshots_.size());
  return out_.write(header_.snapshot_table, bytes.span());
}

}  // namespace vc::qcow2
