#include "qcow2/refcounts/refcount_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

// The most clean blocks to keep in memory, in bytes.
constexpr uint64_t kCleanBlocksLimit = 8 << 20;
constexpr uint64_t kTableOffsetMask = ~uint64_t{511};

}  // namespace

uint64_t RefcountTable::Block::get(uint64_t index) const {
  return get_refcount(bytes_, index, order_);
}

void RefcountTable::Block::mark(uint64_t begin, uint64_t end) {
  dirty_begin_ = std::min(dirty_begin_, begin);
  dirty_end_ = std::max(dirty_end_, end);
}

RefcountTable::RefcountTable(std::shared_ptr<Storage> storage, const Header& header)
    : storage_(std::move(storage)),
      geometry_(header.geometry()),
      order_(header.refcount_order),
      block_bits_(header.cluster_bits + 3 - header.refcount_order),
      offset_(header.refcount_table) {}

Result<RefcountTable> RefcountTable::load(std::shared_ptr<Storage> storage, const Header& header) {
  RefcountTable it(std::move(storage), header);
  const uint64_t bytes = uint64_t{header.refcount_table_clusters} << header.cluster_bits;
  ASSIGN_OR_RETURN(const uint64_t file_size, it.storage_->size());
  if (bytes > file_size || header.refcount_table.value() > file_size - bytes)
    return fail(
        Error::corrupt(fmt::format("the refcount table at {:#x} ends past the end of the "
                                   "file at {:#x}",
                                   header.refcount_table.value(), file_size)));
  it.entries_.resize(bytes / 8);
  RETURN_IF_ERROR(read_fully(*it.storage_, header.refcount_table,
                             std::as_writable_bytes(std::span(it.entries_))));
  for (uint64_t index = 0; index < it.entries_.size(); ++index) {
    uint64_t& entry = it.entries_[index];
    entry = swap_if_little(entry) & kTableOffsetMask;
    if (it.geometry_.offset_in_cluster(entry) != 0 || entry >= file_size)
      if (entry != 0)
        return fail(Error::corrupt(
            fmt::format("refcount table entry {}: the block at {:#x} is not a cluster of the file",
                        index, entry)));
  }
  it.end_ = it.geometry_.clusters_for(file_size);
  return it;
}

Result<RefcountTable::Block*> RefcountTable::load_block(uint64_t index) {
  forget_clean_blocks();
  Block block;
  block.at_ = HostOffset(entries_[index]);
  block.order_ = order_;
  block.bytes_.resize(geometry_.cluster_size());
  RETURN_IF_ERROR(with_context(read_fully(*storage_, block.at_, block.bytes_),
                               fmt::format("{}: refcount block {}", storage_->name(), index)));
  return &blocks_.insert_or_assign(index, std::move(block)).first->second;
}

Result<RefcountTable::Block*> RefcountTable::find_block(uint64_t index) {
  if (const auto found = blocks_.find(index); found != blocks_.end()) return &found->second;
  if (!has_block(index)) return nullptr;
  return load_block(index);
}

void RefcountTable::forget_clean_blocks() {
  uint64_t bytes = blocks_.size() << geometry_.cluster_bits();
  for (auto it = blocks_.begin(); it != blocks_.end() && bytes > kCleanBlocksLimit;) {
    if (it->second.dirty() || it->second.committing_) {
      ++it;
      continue;
    }
    it = blocks_.erase(it);
    bytes -= geometry_.cluster_size();
  }
}

RefcountTable::Block& RefcountTable::add_block(uint64_t index, uint64_t cluster) {
  Block block;
  block.at_ = geometry_.start_of(HostCluster(cluster));
  block.order_ = order_;
  block.bytes_.resize(geometry_.cluster_size());
  // The whole block must be written, whatever the cluster contained before.
  block.mark(0, block.bytes_.size());
  entries_[index] = block.at_.value();
  changed_entries_.insert(index);
  return blocks_.insert_or_assign(index, std::move(block)).first->second;
}

Result<RefcountTable::Block*> RefcountTable::require_block(uint64_t index) {
  ASSIGN_OR_RETURN(Block * found, find_block(index));
  if (found) return found;
  if (index >= entries_.size()) RETURN_IF_ERROR(grow(index));
  ASSIGN_OR_RETURN(found, find_block(index));
  if (found) return found;

  // The block is in the first cluster of its own range, and counts itself. Without the block, all
  // other refcounts of the range are 0.
  const uint64_t cluster = index << block_bits_;
  Block& made = add_block(index, cluster);
  set_count(made, cluster, 1);
  extend(cluster + 1);
  return &made;
}

// The new table and the blocks that count it go past all clusters that the old table could cover:
//
//     S = first cluster that the old table does not cover
//     | blocks for the ranges of S … | the new table |
Result<void> RefcountTable::grow(uint64_t index) {
  const uint64_t cluster_size = geometry_.cluster_size();
  const uint64_t entries_per_cluster = cluster_size / 8;
  const uint64_t first_range = entries_.size();
  const uint64_t start = first_range << block_bits_;

  uint64_t table_clusters =
      std::max(first_range + first_range / 2, index + 1) / entries_per_cluster + 1;
  uint64_t blocks = 1;
  while (blocks * range() < blocks + table_clusters ||
         first_range + blocks > table_clusters * entries_per_cluster) {
    ++blocks;
    table_clusters = std::max(table_clusters, (first_range + blocks) / entries_per_cluster + 1);
  }
  if (table_clusters * cluster_size > Limits::kRefcountTableBytes)
    return fail(Error::system(
        EFBIG, fmt::format("{}: the refcount table cannot grow any more", storage_->name())));

  old_tables_.push_back(clusters());
  entries_.resize(table_clusters * entries_per_cluster);
  for (uint64_t i = 0; i < blocks; ++i) add_block(first_range + i, start + i);
  for (uint64_t cluster = start; cluster < start + blocks + table_clusters; ++cluster)
    set_count(blocks_.at(block_index(cluster)), cluster, 1);
  offset_ = geometry_.start_of(HostCluster(start + blocks));
  moved_ = true;
  extend(start + blocks + table_clusters);
  return {};
}

Result<uint64_t> RefcountTable::count_of(uint64_t cluster) {
  ASSIGN_OR_RETURN(const Block* block, find_block(block_index(cluster)));
  return block ? block->get(index_in_block(cluster)) : uint64_t{0};
}

void RefcountTable::set_count(Block& block, uint64_t cluster, uint64_t count) {
  const uint64_t index = index_in_block(cluster);
  set_refcount(block.bytes_, index, order_, count);
  block.mark((index << order_) / 8, (((index + 1) << order_) + 7) / 8);
}

ClusterRun RefcountTable::clusters() const {
  return {geometry_.host_cluster_of(offset_), geometry_.clusters_for(entries_.size() * 8)};
}

HostCluster RefcountTable::block_cluster(uint64_t index) const {
  return geometry_.host_cluster_of(HostOffset(entries_[index]));
}

Result<bool> RefcountTable::counts_only_itself(uint64_t index) {
  ASSIGN_OR_RETURN(const Block* const block, find_block(index));
  const uint64_t own = geometry_.host_cluster_of(block->at_).value();
  for (uint64_t i = 0; i < range(); ++i)
    if (block->get(i) != (index * range() + i == own ? 1U : 0U)) return false;
  return true;
}

void RefcountTable::drop_block(uint64_t index) {
  blocks_.erase(index);
  entries_[index] = 0;
  changed_entries_.insert(index);
}

void RefcountTable::move(HostCluster to) {
  old_tables_.push_back(clusters());
  offset_ = geometry_.start_of(to);
  moved_ = true;
}

Result<void> RefcountTable::move_block(uint64_t index, HostCluster to) {
  ASSIGN_OR_RETURN(Block* const block, find_block(index));
  block->at_ = geometry_.start_of(to);
  block->mark(0, block->bytes_.size());
  entries_[index] = block->at_.value();
  changed_entries_.insert(index);
  return {};
}

bool RefcountTable::changes_are_due() const {
  if (moved_ || !changed_entries_.empty()) return true;
  const uint64_t many = kCleanBlocksLimit >> geometry_.cluster_bits();
  if (blocks_.size() <= many) return false;
  // Clean blocks are not changes: they stay until others need the space.
  const auto changed = std::count_if(blocks_.begin(), blocks_.end(),
                                     [](const auto& it) { return it.second.dirty(); });
  return static_cast<uint64_t>(changed) > many;
}

RefcountChanges RefcountTable::take_changes() {
  RefcountChanges changes;
  for (auto& [index, block] : blocks_) {
    if (!block.dirty()) continue;
    // Whole sectors are written: a torn sector would lose its neighbours.
    const uint64_t begin = round_down(block.dirty_begin_, Geometry::kSectorSize);
    const uint64_t end =
        std::min<uint64_t>(round_up(block.dirty_end_, Geometry::kSectorSize), block.bytes_.size());
    changes.blocks.push_back({block.at_ + begin,
                              {block.bytes_.begin() + static_cast<ptrdiff_t>(begin),
                               block.bytes_.begin() + static_cast<ptrdiff_t>(end)}});
    changes.block_indices.push_back(index);
    block.dirty_begin_ = UINT64_MAX;
    block.dirty_end_ = 0;
    block.committing_ = true;
  }
  const auto entry_bytes = [&](uint64_t first, uint64_t count) {
    std::vector<std::byte> bytes(count * 8);
    for (uint64_t i = 0; i < count; ++i) store_be64(&bytes[i * 8], entries_[first + i]);
    return bytes;
  };
  changes.table_offset = offset_;
  changes.table_clusters = static_cast<uint32_t>(clusters().count);
  if (moved_) {
    changes.table.push_back({offset_, entry_bytes(0, entries_.size())});
    changes.table_moved = true;
    changes.old_tables = std::move(old_tables_);
    old_tables_.clear();
  } else {
    for (const uint64_t index : changed_entries_)
      changes.table.push_back({offset_ + index * 8, entry_bytes(index, 1)});
  }
  changes.table_indices.assign(changed_entries_.begin(), changed_entries_.end());
  changed_entries_.clear();
  moved_ = false;
  return changes;
}

void RefcountTable::committed() {
  for (auto& [index, block] : blocks_) block.committing_ = false;
}

void RefcountTable::commit_failed(const RefcountChanges& changes) {
  for (const uint64_t index : changes.block_indices) {
    Block& block = blocks_.at(index);
    block.mark(0, block.bytes_.size());
    block.committing_ = false;
  }
  old_tables_.insert(old_tables_.end(), changes.old_tables.begin(), changes.old_tables.end());
  changed_entries_.insert(changes.table_indices.begin(), changes.table_indices.end());
  moved_ = moved_ || changes.table_moved;
}

}  // namespace vc::qcow2
