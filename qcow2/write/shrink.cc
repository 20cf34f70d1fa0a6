// Shrinks the file of a DiskWriter at its end.
//
// Free clusters inside the file are holes without disk space, but the file extends to its last used
// cluster.  So clusters at the end move down into holes before the file is truncated:
//
//     before   | A |   | B |   | C | D |      used: 4, length: 6
//     after    | A | C | B | D |              truncated
//
// A cluster is copied to a free one, its entry changes with the next commit, and only then its old
// place is free: no entry in the file ever refers to missing data.  Movable are data, L2 tables and
// refcount blocks that only this disk refers to, the L1 table, and the refcount table.  Clusters
// shared with a snapshot and compressed clusters stay: the file is truncated after the last of
// them.
#include <algorithm>
#include <array>

#include "base/byte_order.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/write/cluster_copy.h"
#include "qcow2/write/disk_writer.h"

namespace vc::qcow2 {

namespace {

// The smallest gain, as a fraction of the file, that is worth a shrink.
constexpr uint64_t kLeastGain = 32;
// Bytes to move per commit: until it is done they use their space twice.
constexpr uint64_t kBytesPerCommit = 64 << 20;

}  // namespace

Result<void> DiskWriter::shrink() {
  ASSIGN_OR_RETURN(const HostCluster end, refcounts_->end_of_use());
  ASSIGN_OR_RETURN(const HostCluster target, end_after_shrink(end));
  if (target == end) return {};
  RETURN_IF_ERROR(move_l1_table(target));
  RETURN_IF_ERROR(refcounts_->move_table_below(target));
  RETURN_IF_ERROR(move_mapped(target));
  // The old places of moved clusters become free, and with them refcount blocks that nothing else
  // needs.
  RETURN_IF_ERROR(commit(true));
  RETURN_IF_ERROR(commit(true));
  std::vector<ClusterRun> old;
  RETURN_IF_ERROR(refcounts_->move_blocks_below(target, old));
  const auto lock = map_->lock_exclusive();
  for (const ClusterRun& run : old) mapping_->unlink(run.first, run.count);
  return {};
}

// Returns the new end of the file after all later clusters have moved; `end` if the gain is too
// small.
Result<HostCluster> DiskWriter::end_after_shrink(HostCluster end) {
  ASSIGN_OR_RETURN(const uint64_t used, refcounts_->count_used(end));
  const uint64_t least = std::max<uint64_t>(end.value() / kLeastGain, 1);
  if (end.value() - used < least) return end;

  std::vector<bool> movable(end.value() - used);  // from cluster `used` on
  const auto mark = [&](HostOffset at, uint64_t clusters) {
    const uint64_t first = geometry_.host_cluster_of(at).value();
    for (uint64_t i = std::max(first, used); i < std::min(first + clusters, end.value()); ++i)
      movable[i - used] = true;
  };
  RETURN_IF_ERROR(each_owned_slice([&](const std::vector<L2Entry>& found) {
    for (const L2Entry& entry : found)
      if (can_move_data() && mapping_->owns_host(entry)) mark(entry.host(), 1);
  }));
  const auto lock = map_->lock_exclusive();
  for (uint64_t i = 0; i < map_->l1_size(); ++i)
    if ((map_->l1_entry(i) & kEntryCopied) != 0)
      mark(HostOffset(map_->l1_entry(i) & kEntryOffsetMask), 1);
  mark(l1_table_, geometry_.clusters_for(map_->l1_size() * 8));
  for (const ClusterRun& run : refcounts_->own_clusters())
    mark(geometry_.start_of(run.first), run.count);

  // Moves at most as many clusters as were freed since the open, to bound the time.
  uint64_t budget = freed_;
  HostCluster target = end;
  for (uint64_t cluster = end.value(); cluster-- > used;) {
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_->get(HostCluster(cluster)));
    if (count > 1 || (count == 1 && (!movable[cluster - used] || budget == 0))) break;
    budget -= count;
    target = HostCluster(cluster);
  }
  return end - target < least ? end : target;
}

// Calls `visit (entries)` for the slices of all tables that only this disk refers to.  Holds the
// map's lock during each call.
template <typename Visit>
Result<void> DiskWriter::each_owned_slice(Visit visit) {
  for (uint64_t i = 0; i < map_->l1_size(); ++i) {
    ClusterIndex first(i << geometry_.l2_bits());
    const ClusterIndex end = first + geometry_.l2_entries();
    for (; first < end; first = mapping_->end_of_slice(first)) {
      const auto lock = map_->lock_exclusive();
      if ((map_->l1_entry(i) & kEntryCopied) == 0) break;
      ASSIGN_OR_RETURN(const auto found, mapping_->entries(first, mapping_->end_of_slice(first)));
      visit(found);
    }
  }
  return {};
}

Result<void> DiskWriter::move_mapped(HostCluster target) {
  uint64_t moved = 0;  // bytes, since the last commit
  for (uint64_t i = 0; i < map_->l1_size(); ++i) {
    ClusterIndex first(i << geometry_.l2_bits());
    const ClusterIndex end = first + geometry_.l2_entries();
    for (; first < end; first = mapping_->end_of_slice(first)) {
      {
        const auto lock = map_->lock_exclusive();
        const uint64_t l1 = map_->l1_entry(i);
        if ((l1 & kEntryCopied) == 0) break;
        if (geometry_.host_cluster_of(HostOffset(l1 & kEntryOffsetMask)) >= target) {
          ASSIGN_OR_RETURN(const Refcounts::Run run, refcounts_->allocate_below(target, 1));
          if (run.count == 0) return {};
          RETURN_IF_ERROR(mapping_->place_table(i, run.first));
          moved += geometry_.cluster_size();
        }
        RETURN_IF_ERROR(move_slice(first, target, moved));
      }
      if (moved < kBytesPerCommit) continue;
      RETURN_IF_ERROR(commit(true));
      moved = 0;
    }
  }
  return {};
}

// Moves the data clusters from `target` on that a slice maps.  The caller must hold the map's lock.
Result<void> DiskWriter::move_slice(ClusterIndex first, HostCluster target, uint64_t& moved) {
  if (!can_move_data()) return {};
  ASSIGN_OR_RETURN(const auto found, mapping_->entries(first, mapping_->end_of_slice(first)));
  const auto moves = [&](L2Entry entry) {
    return mapping_->owns_host(entry) && geometry_.host_cluster_of(entry.host()) >= target;
  };
  for (uint64_t i = 0; i < found.size();) {
    uint64_t end = i;
    while (end < found.size() && moves(found[end])) ++end;
    if (end == i) {
      ++i;
      continue;
    }
    ASSIGN_OR_RETURN(const Refcounts::Run run, refcounts_->allocate_below(target, end - i));
    if (run.count == 0) return {};
    for (uint64_t k = 0; k < run.count; ++k) {
      const L2Entry old = found[i + k];
      const HostOffset to = geometry_.start_of(run.first + k);
      auto copied = mapping_->has_data(old)
                        ? copy_cluster(*data_, old.host(), to, geometry_.cluster_size())
                        : Result<void>{};
      if (copied) {
        L2Entry entry = old;
        entry.word = (old.word & ~kEntryOffsetMask) | to.value();
        copied = mapping_->set_entry(first + (i + k), entry);
      }
      if (!copied) {
        std::vector<ClusterRun> freed;
        RETURN_IF_ERROR(refcounts_->release(run.first + k, run.count - k, freed));
        return copied;
      }
      mapping_->unlink(old);
    }
    moved += run.count << geometry_.cluster_bits();
    i += run.count;
  }
  return {};
}

// Moves the whole table if it extends past `target` and there is a large enough hole.
Result<void> DiskWriter::move_l1_table(HostCluster target) {
  const uint64_t clusters = geometry_.clusters_for(map_->l1_size() * 8);
  if (clusters == 0 || geometry_.host_cluster_of(l1_table_) + clusters <= target) return {};
  ASSIGN_OR_RETURN(const Refcounts::Run run, refcounts_->allocate_below(target, clusters));
  if (run.count < clusters) {
    std::vector<ClusterRun> freed;
    return run.count == 0 ? Result<void>{} : refcounts_->release(run.first, run.count, freed);
  }
  // Everything that the table points to, and its own count, must be on disk before the header
  // changes.
  const HostOffset at = geometry_.start_of(run.first);
  std::vector<std::byte> table(clusters << geometry_.cluster_bits());
  RETURN_IF_ERROR(commit(true));
  for (uint64_t i = 0; i < map_->l1_size(); ++i) store_be64(&table[i * 8], map_->l1_entry(i));
  RETURN_IF_ERROR(storage_->write(at, table));
  RETURN_IF_ERROR(storage_->flush());
  std::array<std::byte, 8> field{};
  store_be64(field.data(), at.value());
  RETURN_IF_ERROR(storage_->write(HostOffset(header_field::kL1Table), field));
  RETURN_IF_ERROR(storage_->flush());
  const auto lock = map_->lock_exclusive();
  mapping_->unlink(geometry_.host_cluster_of(l1_table_), clusters);
  l1_table_ = at;
  return {};
}

}  // namespace vc::qcow2
