// The space that snapshots take in a copy.
#include <algorithm>
#include <functional>

#include "base/rounding.h"
#include "copy/snapshot_copy.h"
#include "copy/space_check.h"
#include "copy/states/own_clusters.h"
#include "qcow2/format/refcount_block.h"

namespace vc::copy {

namespace {

using qcow2::Geometry;

// Returns `bytes` with the refcount blocks for them.
uint64_t with_refcounts(const qcow2::BuildOptions& build, uint64_t bytes) {
  const uint64_t per_block = qcow2::refcounts_per_block(build.cluster_bits, build.refcount_order);
  return bytes + bytes / (per_block - 1) + 2 * build.geometry().cluster_size();
}

uint64_t add(uint64_t a, uint64_t b) {
  return b > UINT64_MAX - a ? UINT64_MAX : a + b;
}

}  // namespace

uint64_t SnapshotCopy::largest_size() const {
  const Geometry& geometry = plan_.worker.geometry;
  uint64_t total = qcow2::snapshot_table_bytes(carried_.all());
  for (const qcow2::Snapshot& it : carried_.all())
    for (const uint64_t bytes : {it.disk_size, it.vm_state_size}) {
      const uint64_t tables = geometry.l1_entries_for(bytes) << geometry.cluster_bits();
      total = add(add(total, bytes), tables + tables / geometry.l2_entries());
      total = add(total, 4 * geometry.cluster_size());
    }
  return total > UINT64_MAX / 2 ? UINT64_MAX : with_refcounts(plan_.build, total);
}

// Returns the number of L2 tables that the state does not share.
Result<uint64_t> SnapshotCopy::own_tables(size_t state, const Stop& stop) {
  uint64_t tables = 0;
  const uint64_t all = plan_.worker.geometry.l1_entries_for(own_->size(state));
  for (uint64_t i = 0; i < all; ++i) {
    if (stop.requested()) return fail(Error::cancelled());
    ASSIGN_OR_RETURN(const bool has_table, own_->has_table(state, i));
    if (!has_table) continue;
    ASSIGN_OR_RETURN(const size_t first, own_->first_with_table(state, i));
    tables += first == state;
  }
  return tables;
}

Result<void> SnapshotCopy::for_each_part(const Visit& visit, const Stop& stop) {
  const Geometry& geometry = plan_.worker.geometry;
  for (size_t i = 0; i < count(); ++i) {
    const qcow2::Snapshot& snapshot = carried_.all()[i];
    ASSIGN_OR_RETURN(const auto disk, open_disk(carried_, i));
    OwnClusters own(*disk, *own_, i + 1, options_.keeps_backing());
    ASSIGN_OR_RETURN(const uint64_t tables, own_tables(i + 1, stop));
    const uint64_t l1 = (geometry.l1_entries_for(snapshot.disk_size) +
                         geometry.l1_entries_for(snapshot.vm_state_size) + 1) *
                        8;
    const uint64_t entry = qcow2::snapshot_table_bytes({snapshot}) + 64;
    const uint64_t metadata = (tables << geometry.cluster_bits()) + l1 + geometry.cluster_size();
    RETURN_IF_ERROR(visit(own, snapshot.disk_size, metadata + entry));
    ASSIGN_OR_RETURN(const auto vm_state, carried_.vm_state(i));
    const uint64_t vm_tables = geometry.l1_entries_for(snapshot.vm_state_size);
    RETURN_IF_ERROR(visit(*vm_state, snapshot.vm_state_size, vm_tables << geometry.cluster_bits()));
  }
  return {};
}

Result<uint64_t> SnapshotCopy::most_bytes(const Stop& stop) {
  const Geometry& geometry = plan_.worker.geometry;
  uint64_t total = 0;
  const auto visit = [&](Source& part, uint64_t, uint64_t metadata) -> Result<void> {
    ASSIGN_OR_RETURN(const uint64_t live, count_live_clusters(part, geometry, stop));
    total += (live << geometry.cluster_bits()) + metadata;
    return {};
  };
  RETURN_IF_ERROR(for_each_part(visit, stop));
  return with_refcounts(plan_.build, total);
}

Result<uint64_t> SnapshotCopy::bytes_with_clones(const Stop& stop) {
  uint64_t total = 0;
  const auto visit = [&](Source& part, uint64_t, uint64_t metadata) -> Result<void> {
    ASSIGN_OR_RETURN(const uint64_t live, count_live_clusters(part, plan_.worker.geometry, stop));
    ASSIGN_OR_RETURN(const uint64_t bytes, copy::bytes_with_clones(part, live, plan_.worker, stop));
    total += bytes + metadata;
    return {};
  };
  RETURN_IF_ERROR(for_each_part(visit, stop));
  return with_refcounts(plan_.build, total);
}

Result<uint64_t> SnapshotCopy::estimated_bytes(const Stop& stop) {
  uint64_t total = 0;
  const auto visit = [&](Source& part, uint64_t, uint64_t metadata) -> Result<void> {
    ASSIGN_OR_RETURN(const uint64_t live, count_live_clusters(part, plan_.worker.geometry, stop));
    ASSIGN_OR_RETURN(const uint64_t bytes, estimate_bytes(part, live, plan_.worker, stop));
    total += bytes + metadata;
    return {};
  };
  RETURN_IF_ERROR(for_each_part(visit, stop));
  return with_refcounts(plan_.build, total);
}

}  // namespace vc::copy
