#include "qcow2/write/writable_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace vc::qcow2 {

Result<std::unique_ptr<WritableMap>> WritableMap::open(std::shared_ptr<const Image> image,
                                                       std::shared_ptr<ClusterMap> map,
                                                       Refcounts& refcounts, bool has_data_file) {
  std::unique_ptr<WritableMap> it(
      new WritableMap(std::move(image), std::move(map), refcounts, has_data_file));
  const Geometry& geometry = it->geometry_;
  const auto add = [&](Structure structure, HostOffset at, uint64_t bytes) -> Result<void> {
    RETURN_IF_ERROR(it->check_counted(structure, at, bytes));
    it->tables_.add(geometry.host_cluster_of(at), geometry.clusters_for(bytes), structure);
    return {};
  };
  RETURN_IF_ERROR(it->for_each_table(add));
  RETURN_IF_ERROR(it->tables_.complete());
  return it;
}

// Calls `visit (structure, offset, bytes)` for all tables.
template <typename Visit>
Result<void> WritableMap::for_each_table(const Visit& visit) const {
  const Header& header = image_->header();
  RETURN_IF_ERROR(for_each_structure(header, image_->snapshots(), visit));
  const HostCluster table = geometry_.host_cluster_of(header.refcount_table);
  for (const ClusterRun& run : refcounts_.own_clusters())
    for (HostCluster it = run.first; it < run.end(); it += 1)
      if (it < table || table + header.refcount_table_clusters <= it)
        RETURN_IF_ERROR(
            visit(Structure::kRefcountBlock, geometry_.start_of(it), geometry_.cluster_size()));
  for (uint64_t i = 0; i < map_->l1_size(); ++i)
    if (const HostOffset at(map_->l1_entry(i) & kEntryOffsetMask); at.value() != 0)
      RETURN_IF_ERROR(visit(Structure::kL2Table, at, geometry_.cluster_size()));
  return {};
}

Result<void> WritableMap::check_counted(Structure structure, HostOffset at, uint64_t length) {
  const HostCluster last = geometry_.host_cluster_of(at + (length - 1));
  for (HostCluster cluster = geometry_.host_cluster_of(at); cluster <= last; cluster += 1) {
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_.get(cluster));
    if (count == 0)
      return fail(Error::corrupt(
          fmt::format("the {} at {:#x} has no reference count: repair the image first "
                      "(qemu-img check -r all)",
                      to_string(structure), geometry_.start_of(cluster).value())));
  }
  return {};
}

Result<bool> WritableMap::add_bitmaps(const BitmapDirectory& directory) {
  OverlapCheck apart;
  bool valid = true;
  const auto add = [&](Structure structure, HostOffset at, uint64_t bytes) -> Result<void> {
    const HostCluster first = geometry_.host_cluster_of(at);
    const uint64_t count = geometry_.clusters_for(bytes);
    valid = valid && !tables_.find(first, count);
    for (uint64_t i = 0; valid && i < count; ++i) {
      ASSIGN_OR_RETURN(const uint64_t references, refcounts_.get(first + i));
      valid = references != 0;
    }
    if (valid) apart.add(first, count, structure);
    return {};
  };
  RETURN_IF_ERROR(add(Structure::kBitmapDirectory, directory.at, directory.size));
  // Tables may have one structure twice, but not two bitmaps.
  uint64_t clusters = 0;
  for (const Bitmap& it : directory.bitmaps) {
    RETURN_IF_ERROR(add(Structure::kBitmapTable, it.table, uint64_t{it.table_entries} * 8));
    clusters += geometry_.clusters_for(uint64_t{it.table_entries} * 8);
  }
  if (!valid || !apart.complete()) return false;
  if (apart.size() != clusters + geometry_.clusters_for(directory.size)) return false;
  tables_.merge(apart);
  return true;
}

void WritableMap::erase_bitmaps(const BitmapDirectory& directory) {
  erase_table(geometry_.host_cluster_of(directory.at), geometry_.clusters_for(directory.size));
  for (const Bitmap& it : directory.bitmaps)
    if (it.enabled())
      erase_table(geometry_.host_cluster_of(it.table),
                  geometry_.clusters_for(uint64_t{it.table_entries} * 8));
}

std::optional<OverlapCheck::Hit> WritableMap::table_at(HostOffset host, uint64_t length) const {
  if (has_data_file_) return std::nullopt;
  const HostCluster first = geometry_.host_cluster_of(host);
  return tables_.find(first, geometry_.host_cluster_of(host + (length - 1)) - first + 1);
}

ClusterIndex WritableMap::end_of_slice(ClusterIndex cluster) const {
  const uint64_t entries = map_->slice_entries();
  return ClusterIndex((cluster.value() / entries + 1) * entries);
}

WritableMap::Slot WritableMap::slot_of(ClusterIndex cluster) const {
  const uint64_t l1 = map_->l1_entry(geometry_.l1_index(cluster));
  const uint64_t entries = map_->slice_entries();
  const uint64_t index = geometry_.l2_index(cluster);
  const HostOffset table(l1 & kEntryOffsetMask);
  return {table + index / entries * map_->slice_size(), index % entries, table.value() != 0,
          (l1 & kEntryCopied) != 0};
}

Result<std::vector<L2Entry>> WritableMap::entries(ClusterIndex first, ClusterIndex end) const {
  std::vector<L2Entry> entries(end - first);
  const Slot slot = slot_of(first);
  if (!slot.exists) return entries;
  if (geometry_.offset_in_cluster(slot.slice.value()) % map_->slice_size() != 0)
    return fail(Error::corrupt(fmt::format("{}: the L2 table at {:#x} does not begin at a cluster",
                                           image_->name(), slot.slice.value())));
  ASSIGN_OR_RETURN(const auto slice, map_->slice_at(slot.slice));
  for (uint64_t i = 0; i < entries.size(); ++i)
    entries[i] = load_l2_entry(*slice, slot.index + i, extended());
  return entries;
}

bool WritableMap::owns_host(L2Entry entry) const {
  return entry.copied() && !entry.compressed() && (entry.host().value() != 0 || has_data_file_);
}

bool WritableMap::in_place(L2Entry entry, unsigned subcluster) const {
  if (!owns_host(entry)) return false;
  return extended() ? ((entry.allocated_mask() >> subcluster) & 1) != 0 : !entry.zero_flag();
}

bool WritableMap::has_data(L2Entry entry) const {
  if (entry.compressed()) return true;
  if (entry.host().value() == 0 && !(has_data_file_ && entry.copied())) return false;
  return extended() ? entry.allocated_mask() != 0 : !entry.zero_flag();
}

Result<uint64_t> WritableMap::find_in_place(GuestOffset at, uint64_t limit,
                                            HostOffset& host) const {
  const ClusterIndex first = geometry_.cluster_of(at);
  const Slot slot = slot_of(first);
  if (!slot.exists || !slot.owned) return uint64_t{0};
  const ClusterIndex end =
      std::min(end_of_slice(first), ClusterIndex(geometry_.clusters_for(at.value() + limit)));
  ASSIGN_OR_RETURN(const auto found, entries(first, end));
  const uint64_t unit = geometry_.subcluster_size();
  GuestOffset position = at;
  const GuestOffset stop = at + limit;
  for (uint64_t i = 0; i < found.size() && position < stop; ++i) {
    const GuestOffset start = geometry_.start_of(first + i);
    const HostOffset here = found[i].host() + (position - start);
    if (i == 0) host = here;
    while (position < stop && position - start < geometry_.cluster_size()) {
      const auto subcluster = static_cast<unsigned>((position - start) / unit);
      if (!in_place(found[i], subcluster) ||
          found[i].host() + (position - start) != host + (position - at))
        return position - at;
      position = start + uint64_t{subcluster + 1} * unit;
    }
  }
  return std::min(position, stop) - at;
}

Result<void> WritableMap::ensure_table(ClusterIndex cluster) {
  const uint64_t l1_index = geometry_.l1_index(cluster);
  const uint64_t l1 = map_->l1_entry(l1_index);
  if ((l1 & kEntryOffsetMask) != 0 && (l1 & kEntryCopied) != 0) return {};
  ASSIGN_OR_RETURN(const Refcounts::Run run, refcounts_.allocate(1));
  ++allocated_;
  return place_table(l1_index, run.first);
}

Result<void> WritableMap::place_table(uint64_t l1_index, HostCluster to) {
  const HostOffset old(map_->l1_entry(l1_index) & kEntryOffsetMask);
  std::vector<std::byte> contents(geometry_.cluster_size());
  if (old.value() != 0) {
    for (uint64_t at = 0; at < contents.size(); at += map_->slice_size()) {
      const auto slice = map_->slice_at(old + at);
      if (!slice) {
        std::vector<ClusterRun> freed;
        RETURN_IF_ERROR(refcounts_.release(to, 1, freed));
        return fail(slice.error());
      }
      std::copy((*slice)->begin(), (*slice)->end(), contents.begin() + static_cast<ptrdiff_t>(at));
    }
  }
  map_->add_table(l1_index, geometry_.start_of(to), std::move(contents));
  tables_.insert(to, Structure::kL2Table);
  if (old.value() == 0) return {};
  erase_table(geometry_.host_cluster_of(old), 1);
  unlink(geometry_.host_cluster_of(old), 1);
  return {};
}

Result<void> WritableMap::set_entry(ClusterIndex cluster, L2Entry entry) {
  const Slot slot = slot_of(cluster);
  ASSIGN_OR_RETURN(ClusterMap::Slice * slice, map_->change_slice(slot.slice));
  store_l2_entry(*slice, slot.index, extended(), entry);
  return {};
}

// Removes a reference from the entry's clusters once the change is committed; tables keep theirs.
void WritableMap::unlink(L2Entry entry) {
  if (entry.compressed()) {
    const auto descriptor = CompressedDescriptor::decode(entry.word, geometry_.cluster_bits());
    const HostCluster first = geometry_.host_cluster_of(descriptor.offset);
    const HostCluster last =
        geometry_.host_cluster_of(descriptor.offset + (descriptor.readable_bytes() - 1));
    for (HostCluster cluster = first; cluster <= last; cluster += 1)
      if (!tables_.find(cluster, 1)) unlink(cluster, 1);
  } else if (entry.host().value() != 0 && !has_data_file_) {
    const HostCluster cluster = geometry_.host_cluster_of(entry.host());
    if (!tables_.find(cluster, 1)) unlink(cluster, 1);
  }
}

}  // namespace vc::qcow2
