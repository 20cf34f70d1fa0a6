#include "qcow2/refcounts/refcounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/byte_order.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

// The most clean blocks to keep in memory, in bytes.
constexpr uint64_t kCleanBlocksLimit = 8 << 20;
// The most clusters to search for a run before appending to the file.
constexpr uint64_t kRunScan = 8192;
// The same for a single cluster; the next search continues there.
constexpr uint64_t kSingleScan = 1 << 20;
constexpr uint64_t kTableOffsetMask = ~uint64_t{511};

}  // namespace

Refcounts::Refcounts(std::shared_ptr<Storage> storage, const Header& header)
    : storage_(std::move(storage)),
      geometry_(header.geometry()),
      order_(header.refcount_order),
      block_bits_(header.cluster_bits + 3 - header.refcount_order),
      table_offset_(header.refcount_table) {}

Result<std::unique_ptr<Refcounts>> Refcounts::load(std::shared_ptr<Storage> storage,
                                                   const Header& header) {
  std::unique_ptr<Refcounts> refcounts(new Refcounts(std::move(storage), header));
  const uint64_t bytes = uint64_t{header.refcount_table_clusters} << header.cluster_bits;
  ASSIGN_OR_RETURN(const uint64_t file_size, refcounts->storage_->size());
  if (bytes > file_size || header.refcount_table.value() > file_size - bytes)
    return fail(
        Error::corrupt(fmt::format("the refcount table at {:#x} ends past the end of the "
                                   "file at {:#x}",
                                   header.refcount_table.value(), file_size)));
  refcounts->table_.resize(bytes / 8);
  RETURN_IF_ERROR(read_fully(*refcounts->storage_, header.refcount_table,
                             std::as_writable_bytes(std::span(refcounts->table_))));
  for (uint64_t index = 0; index < refcounts->table_.size(); ++index) {
    uint64_t& entry = refcounts->table_[index];
    entry = swap_if_little(entry) & kTableOffsetMask;
    if (refcounts->geometry_.offset_in_cluster(entry) != 0 || entry >= file_size)
      if (entry != 0)
        return fail(Error::corrupt(
            fmt::format("refcount table entry {}: the block at {:#x} is not a cluster of the file",
                        index, entry)));
  }
  refcounts->end_ = refcounts->geometry_.clusters_for(file_size);
  return refcounts;
}

Result<Refcounts::Block*> Refcounts::load_block(uint64_t index) {
  forget_clean_blocks();
  Block block;
  block.at = HostOffset(table_[index]);
  block.bytes.resize(geometry_.cluster_size());
  RETURN_IF_ERROR(with_context(read_fully(*storage_, block.at, block.bytes),
                               fmt::format("{}: refcount block {}", storage_->name(), index)));
  return &blocks_.insert_or_assign(index, std::move(block)).first->second;
}

Result<Refcounts::Block*> Refcounts::find_block(uint64_t index) {
  if (const auto found = blocks_.find(index); found != blocks_.end()) return &found->second;
  if (index >= table_.size() || table_[index] == 0) return nullptr;
  return load_block(index);
}

void Refcounts::forget_clean_blocks() {
  uint64_t bytes = blocks_.size() << geometry_.cluster_bits();
  for (auto it = blocks_.begin(); it != blocks_.end() && bytes > kCleanBlocksLimit;) {
    if (it->second.dirty() || it->second.committing) {
      ++it;
      continue;
    }
    it = blocks_.erase(it);
    bytes -= geometry_.cluster_size();
  }
}

Result<Refcounts::Block*> Refcounts::require_block(uint64_t index) {
  ASSIGN_OR_RETURN(Block * found, find_block(index));
  if (found) return found;
  if (index >= table_.size()) RETURN_IF_ERROR(grow_table(index));
  ASSIGN_OR_RETURN(found, find_block(index));
  if (found) return found;

  // The block is in the first cluster of its own range, and counts itself: without the block all
  // other counts there are 0.
  const uint64_t cluster = index << block_bits_;
  Block block;
  block.at = geometry_.start_of(HostCluster(cluster));
  block.bytes.resize(geometry_.cluster_size());
  table_[index] = block.at.value();
  changed_entries_.insert(index);
  Block* const made = &blocks_.insert_or_assign(index, std::move(block)).first->second;
  // The whole block must be written, whatever the cluster contained before.
  made->dirty_begin = 0;
  made->dirty_end = geometry_.cluster_size();
  set_count(*made, cluster, 1);
  end_ = std::max(end_, cluster + 1);
  return made;
}

// The new table and the blocks that count it go past all clusters that the old table could cover:
//
//     S = first cluster that the old table does not cover
//     | blocks for the ranges of S … | the new table |
Result<void> Refcounts::grow_table(uint64_t index) {
  const uint64_t cluster_size = geometry_.cluster_size();
  const uint64_t entries_per_cluster = cluster_size / 8;
  const uint64_t first_range = table_.size();
  const uint64_t start = first_range << block_bits_;
  const uint64_t range = uint64_t{1} << block_bits_;

  uint64_t table_clusters =
      std::max(table_.size() + table_.size() / 2, index + 1) / entries_per_cluster + 1;
  uint64_t blocks = 1;
  while (blocks * range < blocks + table_clusters ||
         first_range + blocks > table_clusters * entries_per_cluster) {
    ++blocks;
    table_clusters = std::max(table_clusters, (first_range + blocks) / entries_per_cluster + 1);
  }
  if (table_clusters * cluster_size > Limits::kRefcountTableBytes)
    return fail(Error::system(
        EFBIG, fmt::format("{}: the refcount table cannot grow any more", storage_->name())));

  old_tables_.push_back(
      {geometry_.host_cluster_of(table_offset_), geometry_.clusters_for(table_.size() * 8), false});
  table_.resize(table_clusters * entries_per_cluster);
  for (uint64_t i = 0; i < blocks; ++i) {
    Block block;
    block.at = geometry_.start_of(HostCluster(start + i));
    block.bytes.resize(cluster_size);
    block.dirty_begin = 0;
    block.dirty_end = cluster_size;
    table_[first_range + i] = block.at.value();
    blocks_.insert_or_assign(first_range + i, std::move(block));
  }
  for (uint64_t cluster = start; cluster < start + blocks + table_clusters; ++cluster)
    set_count(blocks_.at(block_index(cluster)), cluster, 1);
  table_offset_ = geometry_.start_of(HostCluster(start + blocks));
  table_moved_ = true;
  end_ = std::max(end_, start + blocks + table_clusters);
  return {};
}

Result<uint64_t> Refcounts::count_of(uint64_t cluster) {
  ASSIGN_OR_RETURN(const Block* block, find_block(block_index(cluster)));
  if (!block) return uint64_t{0};
  return get_refcount(block->bytes, cluster & ((uint64_t{1} << block_bits_) - 1), order_);
}

void Refcounts::set_count(Block& block, uint64_t cluster, uint64_t count) {
  const uint64_t index = cluster & ((uint64_t{1} << block_bits_) - 1);
  set_refcount(block.bytes, index, order_, count);
  const uint64_t begin = (index << order_) / 8;
  const uint64_t end = (((index + 1) << order_) + 7) / 8;
  block.dirty_begin = std::min(block.dirty_begin, begin);
  block.dirty_end = std::max(block.dirty_end, end);
}

Result<uint64_t> Refcounts::get(HostCluster cluster) {
  const std::lock_guard lock(mutex_);
  return count_of(cluster.value());
}

Result<void> Refcounts::assign(HostCluster cluster, uint64_t count) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(Block * block, find_block(block_index(cluster.value())));
  const auto error = [&](const char* why) {
    return fail(
        Error::corrupt(fmt::format("{}: cluster {:#x} has {} references: {}", storage_->name(),
                                   geometry_.start_of(cluster).value(), count, why)));
  };
  if (!block) return count == 0 ? Result<void>{} : error("no refcount block counts it");
  if (count > max_refcount(order_)) return error("its refcount is too narrow for that");
  const uint64_t index = cluster.value() & ((uint64_t{1} << block_bits_) - 1);
  if (get_refcount(block->bytes, index, order_) != count) set_count(*block, cluster.value(), count);
  return {};
}

uint64_t Refcounts::end_of_blocks() {
  const std::lock_guard lock(mutex_);
  uint64_t end = table_.size();
  while (end > 0 && table_[end - 1] == 0) --end;
  return end << block_bits_;
}

// Searches for `wanted` consecutive free clusters from `hint` on, before the end of the file.
Result<bool> Refcounts::find_hole(uint64_t wanted, uint64_t& hint, uint64_t scan_limit, Run& run) {
  uint64_t length = 0;
  for (uint64_t scanned = 0; hint < end_ && scanned < scan_limit; ++hint, ++scanned) {
    // After a crash the file may extend past its blocks.  A missing block is put into the first
    // cluster of its range, which is not free then.
    RETURN_IF_ERROR(require_block(block_index(hint)));
    ASSIGN_OR_RETURN(const uint64_t count, count_of(hint));
    length = count == 0 ? length + 1 : 0;
    if (length < wanted) continue;
    ++hint;
    run = {HostCluster(hint - wanted), wanted, false};
    return true;
  }
  // The next search finds a run that the limit has split.
  hint -= length;
  return false;
}

Result<Refcounts::Run> Refcounts::append(uint64_t wanted) {
  // A cluster past the end of the file may be counted, after a crash between the two changes.
  uint64_t first = end_;
  while (true) {
    RETURN_IF_ERROR(require_block(block_index(first)));
    ASSIGN_OR_RETURN(const uint64_t count, count_of(first));
    if (count == 0) break;
    ++first;
  }
  const uint64_t range_end = (block_index(first) + 1) << block_bits_;
  uint64_t count = 1;
  for (; count < wanted && first + count < range_end; ++count) {
    ASSIGN_OR_RETURN(const uint64_t used, count_of(first + count));
    if (used != 0) break;
  }
  end_ = first + count;
  return Run{HostCluster(first), count, true};
}

Result<Refcounts::Run> Refcounts::allocate(uint64_t wanted) {
  const std::lock_guard lock(mutex_);
  Run run{};
  bool found = false;
  if (wanted > 1) {
    ASSIGN_OR_RETURN(found, find_hole(wanted, run_hint_, kRunScan, run));
  } else {
    ASSIGN_OR_RETURN(found, find_hole(1, hint_, kSingleScan, run));
  }
  if (!found) {
    ASSIGN_OR_RETURN(run, append(wanted));
  }
  for (uint64_t cluster = run.first.value(); cluster < run.first.value() + run.count; ++cluster) {
    ASSIGN_OR_RETURN(Block * block, require_block(block_index(cluster)));
    set_count(*block, cluster, 1);
  }
  return run;
}

// The blocks that count the run go before it: in their usual places they would split it.
//
//     | blocks of ranges that have none | the run |
Result<Refcounts::Run> Refcounts::append_table(uint64_t wanted) {
  for (uint64_t start = end_;;) {
    std::vector<uint64_t> missing;
    uint64_t last = 0;
    for (bool grew = true; grew;) {
      // More blocks may extend into one more range.
      last = block_index(start + missing.size() + wanted - 1);
      const size_t known = missing.size();
      missing.clear();
      for (uint64_t index = block_index(start); index <= last; ++index)
        if (index >= table_.size() || table_[index] == 0) missing.push_back(index);
      grew = missing.size() != known;
    }
    if (last >= table_.size()) {
      RETURN_IF_ERROR(grow_table(last));
      start = end_;
      continue;
    }

    const uint64_t stop = start + missing.size() + wanted;
    uint64_t free = start;
    for (; free < stop; ++free) {
      ASSIGN_OR_RETURN(const uint64_t count, count_of(free));
      if (count != 0) break;
    }
    if (free < stop) {
      // Counted, but past the end of the file, after a crash between the two changes.
      start = free + 1;
      continue;
    }
    for (size_t i = 0; i < missing.size(); ++i) {
      Block block;
      block.at = geometry_.start_of(HostCluster(start + i));
      block.bytes.resize(geometry_.cluster_size());
      block.dirty_begin = 0;
      block.dirty_end = geometry_.cluster_size();
      table_[missing[i]] = block.at.value();
      changed_entries_.insert(missing[i]);
      blocks_.insert_or_assign(missing[i], std::move(block));
    }
    for (uint64_t cluster = start; cluster < start + missing.size(); ++cluster) {
      ASSIGN_OR_RETURN(Block * block, require_block(block_index(cluster)));
      set_count(*block, cluster, 1);
    }
    end_ = stop;
    return Run{HostCluster(start + missing.size()), wanted, true};
  }
}

Result<Refcounts::Run> Refcounts::allocate_table(uint64_t wanted) {
  const std::lock_guard lock(mutex_);
  Run run{};
  ASSIGN_OR_RETURN(const bool found, find_hole(wanted, run_hint_, kRunScan, run));
  if (!found) {
    ASSIGN_OR_RETURN(run, append_table(wanted));
  }
  for (uint64_t cluster = run.first.value(); cluster < run.first.value() + run.count; ++cluster) {
    ASSIGN_OR_RETURN(Block * block, require_block(block_index(cluster)));
    set_count(*block, cluster, 1);
  }
  return run;
}

Result<Refcounts::Run> Refcounts::take_below(uint64_t limit, uint64_t wanted) {
  limit = std::min(limit, end_);
  Run run{HostCluster(0), 0, false};
  for (; hint_ < limit; ++hint_) {
    ASSIGN_OR_RETURN(const uint64_t count, count_of(hint_));
    if (count == 0) break;
  }
  run.first = HostCluster(hint_);
  for (; hint_ < limit && run.count < wanted; ++hint_, ++run.count) {
    ASSIGN_OR_RETURN(Block * block, find_block(block_index(hint_)));
    // An uncounted range would first need a block, at its start.
    if (!block) break;
    const uint64_t index = hint_ & ((uint64_t{1} << block_bits_) - 1);
    if (get_refcount(block->bytes, index, order_) != 0) break;
    set_count(*block, hint_, 1);
  }
  return run;
}

Result<Refcounts::Run> Refcounts::allocate_below(HostCluster limit, uint64_t wanted) {
  const std::lock_guard lock(mutex_);
  return take_below(limit.value(), wanted);
}

// Releases clusters that were allocated and are not needed.
Result<void> Refcounts::release_run(Run run) {
  for (uint64_t cluster = run.first.value(); cluster < run.first.value() + run.count; ++cluster) {
    ASSIGN_OR_RETURN(Block * block, find_block(block_index(cluster)));
    set_count(*block, cluster, 0);
  }
  hint_ = std::min(hint_, run.first.value());
  run_hint_ = std::min(run_hint_, run.first.value());
  return {};
}

Result<uint64_t> Refcounts::count_used(HostCluster end) {
  const std::lock_guard lock(mutex_);
  uint64_t used = 0;
  for (uint64_t cluster = 0; cluster < end.value();) {
    const uint64_t stop = std::min((block_index(cluster) + 1) << block_bits_, end.value());
    ASSIGN_OR_RETURN(const Block* block, find_block(block_index(cluster)));
    for (uint64_t i = 0; block && i < stop - cluster; ++i)
      used += get_refcount(block->bytes, i, order_) != 0;
    cluster = stop;
  }
  return used;
}

std::vector<Refcounts::Run> Refcounts::own_clusters() {
  const std::lock_guard lock(mutex_);
  std::vector<Run> runs{
      {geometry_.host_cluster_of(table_offset_), geometry_.clusters_for(table_.size() * 8), false}};
  for (const uint64_t entry : table_)
    if (entry != 0) runs.push_back({geometry_.host_cluster_of(HostOffset(entry)), 1, false});
  return runs;
}

Result<void> Refcounts::move_table_below(HostCluster limit) {
  const std::lock_guard lock(mutex_);
  const HostCluster first = geometry_.host_cluster_of(table_offset_);
  const uint64_t clusters = geometry_.clusters_for(table_.size() * 8);
  if (first + clusters <= limit) return {};
  ASSIGN_OR_RETURN(const Run run, take_below(limit.value(), clusters));
  if (run.count < clusters) return release_run(run);
  old_tables_.push_back({first, clusters, false});
  table_offset_ = geometry_.start_of(run.first);
  table_moved_ = true;
  return {};
}

bool Refcounts::counts_only_itself(const Block& block, uint64_t index) const {
  const uint64_t own = geometry_.host_cluster_of(block.at).value();
  if (block_index(own) != index) return false;
  const uint64_t range = uint64_t{1} << block_bits_;
  for (uint64_t i = 0; i < range; ++i)
    if (get_refcount(block.bytes, i, order_) != (index * range + i == own ? 1 : 0)) return false;
  return true;
}

Result<void> Refcounts::move_blocks_below(HostCluster limit, std::vector<Run>& old) {
  const std::lock_guard lock(mutex_);
  for (uint64_t index = table_.size(); index-- > 0;) {
    const HostCluster at = geometry_.host_cluster_of(HostOffset(table_[index]));
    if (table_[index] == 0 || at < limit) continue;
    ASSIGN_OR_RETURN(Block * block, find_block(index));
    if (counts_only_itself(*block, index)) {
      blocks_.erase(index);
      table_[index] = 0;
      changed_entries_.insert(index);
      continue;
    }
    ASSIGN_OR_RETURN(const Run run, take_below(limit.value(), 1));
    if (run.count == 0) return {};
    // The allocation may have evicted the block from memory.
    ASSIGN_OR_RETURN(block, find_block(index));
    block->at = geometry_.start_of(run.first);
    block->dirty_begin = 0;
    block->dirty_end = block->bytes.size();
    table_[index] = block->at.value();
    changed_entries_.insert(index);
    old.push_back({at, 1, false});
  }
  return {};
}

Result<void> Refcounts::release(HostCluster first, uint64_t count, std::vector<Run>& freed) {
  const std::lock_guard lock(mutex_);
  for (uint64_t cluster = first.value(); cluster < first.value() + count; ++cluster) {
    ASSIGN_OR_RETURN(Block * block, find_block(block_index(cluster)));
    const uint64_t old =
        block ? get_refcount(block->bytes, cluster & ((uint64_t{1} << block_bits_) - 1), order_)
              : 0;
    if (old == 0)
      return fail(Error::corrupt(
          fmt::format("{}: cluster {:#x} is referenced, but its refcount is 0: run a check",
                      storage_->name(), geometry_.start_of(HostCluster(cluster)).value())));
    set_count(*block, cluster, old - 1);
    if (old != 1) continue;
    hint_ = std::min(hint_, cluster);
    run_hint_ = std::min(run_hint_, cluster);
    if (!freed.empty() && freed.back().first + freed.back().count == HostCluster(cluster))
      ++freed.back().count;
    else
      freed.push_back({HostCluster(cluster), 1, false});
  }
  return {};
}

Result<HostCluster> Refcounts::end_of_use() {
  const std::lock_guard lock(mutex_);
  for (uint64_t index = block_index(end_ - 1) + 1; index-- > 0;) {
    ASSIGN_OR_RETURN(const Block* block, find_block(index));
    if (!block) continue;
    const uint64_t range = uint64_t{1} << block_bits_;
    const uint64_t limit = std::min(range, end_ - index * range);
    for (uint64_t i = limit; i-- > 0;)
      if (get_refcount(block->bytes, i, order_) != 0) return HostCluster(index * range + i + 1);
  }
  return HostCluster(0);
}

void Refcounts::truncate(HostCluster end) {
  const std::lock_guard lock(mutex_);
  end_ = std::min(end_, end.value());
  hint_ = std::min(hint_, end_);
  run_hint_ = std::min(run_hint_, end_);
}

bool Refcounts::changes_are_due() {
  const std::lock_guard lock(mutex_);
  if (table_moved_ || !changed_entries_.empty()) return true;
  const uint64_t many = kCleanBlocksLimit >> geometry_.cluster_bits();
  if (blocks_.size() <= many) return false;
  // Clean blocks are no changes: they stay until others need the space.
  const auto changed = std::count_if(blocks_.begin(), blocks_.end(),
                                     [](const auto& it) { return it.second.dirty(); });
  return static_cast<uint64_t>(changed) > many;
}

Refcounts::Changes Refcounts::take_changes() {
  const std::lock_guard lock(mutex_);
  Changes changes;
  for (auto& [index, block] : blocks_) {
    if (!block.dirty()) continue;
    // Writes whole sectors: a torn sector would lose its neighbours.
    const uint64_t begin = block.dirty_begin / 512 * 512;
    const uint64_t end =
        std::min<uint64_t>((block.dirty_end + 511) / 512 * 512, block.bytes.size());
    changes.blocks.push_back({block.at + begin,
                              {block.bytes.begin() + static_cast<ptrdiff_t>(begin),
                               block.bytes.begin() + static_cast<ptrdiff_t>(end)}});
    changes.block_indices.push_back(index);
    block.dirty_begin = UINT64_MAX;
    block.dirty_end = 0;
    block.committing = true;
  }
  const auto entry_bytes = [&](uint64_t first, uint64_t count) {
    std::vector<std::byte> bytes(count * 8);
    for (uint64_t i = 0; i < count; ++i) store_be64(&bytes[i * 8], table_[first + i]);
    return bytes;
  };
  changes.table_offset = table_offset_;
  changes.table_clusters = static_cast<uint32_t>(geometry_.clusters_for(table_.size() * 8));
  if (table_moved_) {
    changes.table.push_back({table_offset_, entry_bytes(0, table_.size())});
    changes.table_moved = true;
    changes.old_tables = std::move(old_tables_);
    old_tables_.clear();
  } else {
    for (const uint64_t index : changed_entries_)
      changes.table.push_back({table_offset_ + index * 8, entry_bytes(index, 1)});
  }
  changes.table_indices.assign(changed_entries_.begin(), changed_entries_.end());
  changed_entries_.clear();
  table_moved_ = false;
  return changes;
}

void Refcounts::committed() {
  const std::lock_guard lock(mutex_);
  for (auto& [index, block] : blocks_) block.committing = false;
}

void Refcounts::commit_failed(const Changes& changes) {
  const std::lock_guard lock(mutex_);
  for (const uint64_t index : changes.block_indices) {
    Block& block = blocks_.at(index);
    block.dirty_begin = 0;
    block.dirty_end = block.bytes.size();
    block.committing = false;
  }
  old_tables_.insert(old_tables_.end(), changes.old_tables.begin(), changes.old_tables.end());
  changed_entries_.insert(changes.table_indices.begin(), changes.table_indices.end());
  table_moved_ = table_moved_ || changes.table_moved;
}

}  // namespace vc::qcow2
