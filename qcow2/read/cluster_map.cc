#include "qcow2/read/cluster_map.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_order.h"
#include "base/rounding.h"

namespace vc::qcow2 {

Result<std::shared_ptr<ClusterMap>> ClusterMap::open(std::shared_ptr<Storage> storage,
                                                     std::shared_ptr<TableCache> cache,
                                                     const Geometry& geometry, HostOffset l1_table,
                                                     uint32_t l1_entries) {
  const uint64_t bytes = uint64_t{l1_entries} * 8;
  ASSIGN_OR_RETURN(const uint64_t file_size, storage->size());
  if (bytes > file_size || l1_table.value() > file_size - bytes)
    return fail(
        Error::corrupt(fmt::format("{}: the L1 table at {:#x} ends past the end of the "
                                   "file at {:#x}: the image is truncated",
                                   storage->name(), l1_table.value(), file_size)));
  std::shared_ptr<ClusterMap> map(new ClusterMap);
  map->storage_ = std::move(storage);
  map->cache_ = std::move(cache);
  map->geometry_ = geometry;
  map->l1_table_ = l1_table;
  map->l1_size_ = l1_entries;
  map->slice_size_ = std::min(geometry.cluster_size(), TableCache::kSliceSize);
  return map;
}

Result<void> ClusterMap::make_writable() {
  l1_.resize(l1_size_);
  RETURN_IF_ERROR(with_context(
      read_fully(*storage_, l1_table_, std::as_writable_bytes(std::span(l1_))), storage_->name()));
  for (uint64_t& entry : l1_) entry = swap_if_little(entry);
  writable_ = true;
  return {};
}

Result<ClusterMap::L1Entry> ClusterMap::next_table(uint64_t index, uint64_t end) const {
  constexpr uint64_t kEntries = TableCache::kL1SliceSize / 8;
  const uint64_t stop = std::min(end, l1_size_);
  std::shared_ptr<const Slice> slice;
  for (uint64_t i = index; i < stop; ++i) {
    uint64_t entry = 0;
    if (writable_) {
      entry = l1_[i];
    } else {
      const uint64_t first = round_down(i, kEntries);
      if (!slice || i == first) {
        const uint64_t bytes = std::min(kEntries, l1_size_ - first) * 8;
        auto read = cache_->get(*storage_, l1_table_ + first * 8, bytes);
        if (!read)
          return fail(std::move(read).error().with_context(
              fmt::format("{}: L1 table at {:#x}", storage_->name(), l1_table_.value())));
        slice = std::move(*read);
      }
      entry = load_be64(slice->data() + (i - first) * 8);
    }
    if (const HostOffset at(entry & kEntryOffsetMask); at.value() != 0) return L1Entry{i, at};
  }
  return L1Entry{end, HostOffset(0)};
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
  // Sorts by offset: fewer seeks, and the same order in every run.
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
  // A slice in `changed_` is newer, and includes these changes.
  for (auto& [at, slice] : committing_) changed_.emplace(at, slice);
  committing_.clear();
  // Once an L1 entry may point to a table, the table's slices must wait like all others.
  if (!tables_durable)
    for (const Changes::Write& write : changes.new_tables) unreferenced_.insert(write.at.value());
  changed_l1_.insert(changes.l1_indices.begin(), changes.l1_indices.end());
}

}  // namespace vc::qcow2
