#include "qcow2/cluster_map.h"

#include <fmt/format.h>

#include <algorithm>

#include "qcow2/byte_order.h"

namespace qcow2 {

Result<std::shared_ptr<ClusterMap>> ClusterMap::load(std::shared_ptr<Storage> storage,
                                                     std::shared_ptr<TableCache> cache,
                                                     const Geometry& geometry, HostOffset l1_table,
                                                     uint32_t l1_entries) {
  const uint64_t bytes = uint64_t{l1_entries} * 8;
  ASSIGN_OR_RETURN(const uint64_t file_size, storage->size());
  // Before we make room for it.
  if (bytes > file_size || l1_table.value() > file_size - bytes)
    return fail(
        Error::corrupt(fmt::format("{}: the L1 table at {:#x} ends behind the end of the "
                                   "file at {:#x}: the image is cut off",
                                   storage->name(), l1_table.value(), file_size)));
  std::shared_ptr<ClusterMap> map(new ClusterMap);
  map->l1_.resize(l1_entries);
  RETURN_IF_ERROR(
      with_context(read_fully(*storage, l1_table, std::as_writable_bytes(std::span(map->l1_))),
                   storage->name()));
  for (uint64_t& entry : map->l1_) entry = swap_if_little(entry);
  map->storage_ = std::move(storage);
  map->cache_ = std::move(cache);
  map->geometry_ = geometry;
  map->slice_size_ = std::min(geometry.cluster_size(), TableCache::kSliceSize);
  return map;
}

Result<std::shared_ptr<const ClusterMap::Slice>> ClusterMap::slice_at(HostOffset slice) const {
  if (writable_) {
    for (const Slices* slices : {&changed_, &committing_})
      if (const auto found = slices->find(slice.value()); found != slices->end())
        return std::shared_ptr<const Slice>(found->second);
  }
  return cache_->get(*storage_, slice, slice_size_);
}

Result<ClusterMap::Slice*> ClusterMap::change_slice(HostOffset slice) {
  if (const auto found = changed_.find(slice.value()); found != changed_.end())
    return found->second.get();
  ASSIGN_OR_RETURN(const auto current, slice_at(slice));
  auto copy = std::make_shared<Slice>(*current);
  Slice* const bytes = copy.get();
  changed_.emplace(slice.value(), std::move(copy));
  return bytes;
}

void ClusterMap::add_table(uint64_t l1_index, HostOffset table, std::vector<std::byte> contents) {
  for (uint64_t at = 0; at < contents.size(); at += slice_size_) {
    const auto from = contents.begin() + static_cast<ptrdiff_t>(at);
    const uint64_t key = table.value() + at;
    changed_[key] = std::make_shared<Slice>(from, from + static_cast<ptrdiff_t>(slice_size_));
    unreferenced_.insert(key);
  }
  l1_[l1_index] = table.value() | kEntryCopied;
  changed_l1_.insert(l1_index);
}

ClusterMap::Changes ClusterMap::take_changes() {
  Changes changes;
  for (auto& [at, slice] : changed_) {
    auto& list = unreferenced_.contains(at) ? changes.new_tables : changes.slices;
    list.push_back({HostOffset(at), slice});
  }
  // Neighbours next to each other: fewer seeks, and the same order in every run.
  const auto by_offset = [](const Changes::Write& a, const Changes::Write& b) {
    return a.at < b.at;
  };
  std::sort(changes.new_tables.begin(), changes.new_tables.end(), by_offset);
  std::sort(changes.slices.begin(), changes.slices.end(), by_offset);
  changes.l1_indices.assign(changed_l1_.begin(), changed_l1_.end());
  std::sort(changes.l1_indices.begin(), changes.l1_indices.end());
  committing_ = std::move(changed_);
  changed_.clear();
  changed_l1_.clear();
  unreferenced_.clear();
  return changes;
}

void ClusterMap::committed(const Changes& changes) {
  for (const auto* list : {&changes.new_tables, &changes.slices})
    for (const Changes::Write& write : *list) cache_->put(*storage_, write.at, write.bytes);
  committing_.clear();
}

void ClusterMap::commit_failed(const Changes& changes, bool tables_durable) {
  // What was changed again since then is newer, and grew out of this.
  for (auto& [at, slice] : committing_) changed_.emplace(at, slice);
  committing_.clear();
  // Once an L1 entry may point to a table, its slices wait for what they refer to as all others do.
  if (!tables_durable)
    for (const Changes::Write& write : changes.new_tables) unreferenced_.insert(write.at.value());
  changed_l1_.insert(changes.l1_indices.begin(), changes.l1_indices.end());
}

}  // namespace qcow2
