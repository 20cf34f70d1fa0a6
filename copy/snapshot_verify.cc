// Compares the snapshots of a copy with their sources.
//
// A snapshot consists of clusters that it stores itself, and of clusters of earlier states. Of the
// former, the digests are compared. The latter must have the same entries as in the earlier state,
// which is verified, too.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "copy/snapshot_copy.h"
#include "copy/states/own_clusters.h"

namespace vc::copy {

namespace {

Failure differs(const std::string& what) {
  return fail(
      Error::protocol(EIO, fmt::format("{} differs from its source: do not use the copy", what)));
}

bool has_same_fields(const qcow2::Snapshot& a, const qcow2::Snapshot& b) {
  return a.id == b.id && a.name == b.name && a.date_seconds == b.date_seconds &&
         a.date_nanoseconds == b.date_nanoseconds &&
         a.vm_clock_nanoseconds == b.vm_clock_nanoseconds && a.vm_state_size == b.vm_state_size &&
         a.disk_size == b.disk_size && a.instruction_count == b.instruction_count &&
         a.unknown_extra == b.unknown_extra;
}

}  // namespace

Result<void> SnapshotCopy::verify_entries(StateMap& copy, size_t state, const Cancel& cancel) {
  const qcow2::Geometry& geometry = plan_.worker.geometry;
  const uint64_t clusters = geometry.clusters_for(own_->size(state));
  const uint64_t tables = geometry.l1_entries_for(own_->size(state));
  for (uint64_t table = 0; table < tables; ++table) {
    if (cancel.requested()) return fail(Error::cancelled());
    ASSIGN_OR_RETURN(const size_t first_table, own_->first_with_table(state, table));
    if (first_table != state) {
      ASSIGN_OR_RETURN(const bool same, copy.is_equal_table(first_table, state, table));
      if (same) continue;
    }
    const uint64_t end = std::min(clusters, (table + 1) * geometry.l2_entries());
    for (ClusterIndex at(table * geometry.l2_entries()); at.value() < end; ++at) {
      ASSIGN_OR_RETURN(const size_t first, own_->first_with(state, at));
      if (first == state) continue;
      ASSIGN_OR_RETURN(const qcow2::L2Entry stored, copy.entry(first, at));
      ASSIGN_OR_RETURN(const qcow2::L2Entry entry, copy.entry(state, at));
      if (!qcow2::is_same_entry(qcow2::shared_entry(stored), entry))
        return differs(fmt::format("guest offset {:#x}", geometry.start_of(at).value()));
    }
  }
  return {};
}

Result<void> SnapshotCopy::verify_snapshot(const CarriedSnapshots& copy, StateMap& entries,
                                           size_t number, PartProgress& progress,
                                           const Cancel& cancel, VerifySummary& summary) {
  if (!has_same_fields(copy.all()[number], carried_.all()[number]))
    return differs("the entry in the snapshot table");
  RETURN_IF_ERROR(verify_entries(entries, number + 1, cancel));
  const auto compare = [&](Source& part, const Digests& digests, Source& original) -> Result<void> {
    progress.next();
    if (part.size() == 0) return {};
    ASSIGN_OR_RETURN(
        const VerifySummary done,
        copy::verify(digests, part, plan_.pipeline(options_, part), progress, cancel, &original));
    summary.size += done.size;
    summary.read += done.read;
    summary.shared += done.shared;
    summary.elapsed += done.elapsed;
    return {};
  };
  ASSIGN_OR_RETURN(const auto disk, open_disk(copy, number));
  OwnClusters own(*disk, *own_, number + 1, options_.keeps_backing());
  ASSIGN_OR_RETURN(const auto original, open_disk(carried_, number));
  RETURN_IF_ERROR(compare(own, *digests_[2 * number], *original));
  ASSIGN_OR_RETURN(const auto vm_state, copy.vm_state(number));
  ASSIGN_OR_RETURN(const auto original_state, carried_.vm_state(number));
  return compare(*vm_state, *digests_[2 * number + 1], *original_state);
}

Result<void> SnapshotCopy::verify(const qcow2::Chain& copy, PartProgress& progress,
                                  const Cancel& cancel, VerifySummary& summary) {
  const CarriedSnapshots copied = CarriedSnapshots::all_of(copy);
  if (copied.all().size() != count()) return differs("the number of snapshots");
  StateMap::Active active;
  active.size = copy.disk().size();
  ASSIGN_OR_RETURN(const auto entries, copied.map(plan_.worker.geometry, std::move(active)));
  for (size_t i = 0; i < count(); ++i)
    RETURN_IF_ERROR(with_context(
        verify_snapshot(copied, *entries, i, progress, cancel, summary),
        fmt::format("{}: snapshot '{}'", options_.destination, carried_.all()[i].name)));
  return {};
}

}  // namespace vc::copy
