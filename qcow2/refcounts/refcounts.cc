#include "qcow2/refcounts/refcounts.h"

#include <fmt/format.h>

#include <algorithm>

#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

// The most clusters to search for a run before appending to the file.
constexpr uint64_t kRunScan = 8192;
// The same for a single cluster; the next search continues there.
constexpr uint64_t kSingleScan = 1 << 20;

}  // namespace

Result<std::unique_ptr<Refcounts>> Refcounts::load(std::shared_ptr<Storage> storage,
                                                   const Header& header) {
  ASSIGN_OR_RETURN(RefcountTable table, RefcountTable::load(storage, header));
  return std::unique_ptr<Refcounts>(
      new Refcounts(std::move(table), std::move(storage), header.geometry()));
}

Result<uint64_t> Refcounts::get(HostCluster cluster) {
  const MutexLock lock(mutex_);
  return table_.count_of(cluster.value());
}

Result<void> Refcounts::assign(HostCluster cluster, uint64_t count) {
  const MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(RefcountTable::Block* const block,
                   table_.find_block(table_.block_index(cluster.value())));
  const auto error = [&](const char* why) {
    return fail(
        Error::corrupt(fmt::format("{}: cluster {:#x} has {} references: {}", storage_->name(),
                                   geometry_.start_of(cluster).value(), count, why)));
  };
  if (!block) return count == 0 ? Result<void>{} : error("no refcount block covers it");
  if (count > max_refcount(table_.order())) return error("its refcount has too few bits");
  if (block->get(table_.index_in_block(cluster.value())) != count)
    table_.set_count(*block, cluster.value(), count);
  return {};
}

Result<bool> Refcounts::can_add(HostCluster cluster, uint64_t times) {
  const MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(const uint64_t count, table_.count_of(cluster.value()));
  const uint64_t most = max_refcount(table_.order());
  return times <= most && count <= most - times;
}

uint64_t Refcounts::end_of_blocks() {
  const MutexLock lock(mutex_);
  uint64_t end = table_.size();
  while (end > 0 && !table_.has_block(end - 1)) --end;
  return end * table_.range();
}

// Searches for `wanted` consecutive free clusters from `hint` on, before the end of the file.
Result<bool> Refcounts::find_hole(uint64_t wanted, uint64_t& hint, uint64_t scan_limit, Run& run) {
  uint64_t length = 0;
  for (uint64_t scanned = 0; hint < table_.end() && scanned < scan_limit; ++hint, ++scanned) {
    // After a crash the file may extend past its blocks.  A missing block is put into the first
    // cluster of its range, which is not free then.
    RETURN_IF_ERROR(table_.require_block(table_.block_index(hint)));
    ASSIGN_OR_RETURN(const uint64_t count, table_.count_of(hint));
    length = count == 0 ? length + 1 : 0;
    if (length < wanted) continue;
    ++hint;
    run = {{HostCluster(hint - wanted), wanted}, false};
    return true;
  }
  // The next search finds a run that the limit has split.
  hint -= length;
  return false;
}

Result<Refcounts::Run> Refcounts::append(uint64_t wanted) {
  // After a crash between the two changes, a cluster past the end of the file may have a refcount.
  uint64_t first = table_.end();
  while (true) {
    RETURN_IF_ERROR(table_.require_block(table_.block_index(first)));
    ASSIGN_OR_RETURN(const uint64_t count, table_.count_of(first));
    if (count == 0) break;
    ++first;
  }
  const uint64_t range_end = (table_.block_index(first) + 1) * table_.range();
  uint64_t count = 1;
  for (; count < wanted && first + count < range_end; ++count) {
    ASSIGN_OR_RETURN(const uint64_t used, table_.count_of(first + count));
    if (used != 0) break;
  }
  table_.extend(first + count);
  return Run{{HostCluster(first), count}, true};
}

// Sets the refcounts of an allocated run to 1.
Result<void> Refcounts::count_one(const ClusterRun& run) {
  for (uint64_t cluster = run.first.value(); cluster < run.end().value(); ++cluster) {
    ASSIGN_OR_RETURN(RefcountTable::Block* const block,
                     table_.require_block(table_.block_index(cluster)));
    table_.set_count(*block, cluster, 1);
  }
  return {};
}

Result<Refcounts::Run> Refcounts::allocate(uint64_t wanted) {
  const MutexLock lock(mutex_);
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
  RETURN_IF_ERROR(count_one(run));
  return run;
}

// The blocks that count the run go before it: in their usual places they would split it.
//
//     | blocks of ranges that have none | the run |
Result<Refcounts::Run> Refcounts::append_table(uint64_t wanted) {
  for (uint64_t start = table_.end();;) {
    std::vector<uint64_t> missing;
    uint64_t last = 0;
    for (bool grew = true; grew;) {
      // More blocks may extend into one more range.
      last = table_.block_index(start + missing.size() + wanted - 1);
      const size_t known = missing.size();
      missing.clear();
      for (uint64_t index = table_.block_index(start); index <= last; ++index)
        if (!table_.has_block(index)) missing.push_back(index);
      grew = missing.size() != known;
    }
    if (last >= table_.size()) {
      RETURN_IF_ERROR(table_.grow(last));
      start = table_.end();
      continue;
    }

    const uint64_t stop = start + missing.size() + wanted;
    uint64_t free = start;
    for (; free < stop; ++free) {
      ASSIGN_OR_RETURN(const uint64_t count, table_.count_of(free));
      if (count != 0) break;
    }
    if (free < stop) {
      // Has a refcount, but is past the end of the file, after a crash between the two changes.
      start = free + 1;
      continue;
    }
    for (size_t i = 0; i < missing.size(); ++i) table_.add_block(missing[i], start + i);
    RETURN_IF_ERROR(count_one({HostCluster(start), missing.size()}));
    table_.extend(stop);
    return Run{{HostCluster(start + missing.size()), wanted}, true};
  }
}

Result<Refcounts::Run> Refcounts::allocate_table(uint64_t wanted) {
  const MutexLock lock(mutex_);
  Run run{};
  ASSIGN_OR_RETURN(const bool found, find_hole(wanted, run_hint_, kRunScan, run));
  if (!found) {
    ASSIGN_OR_RETURN(run, append_table(wanted));
  }
  RETURN_IF_ERROR(count_one(run));
  return run;
}

Result<Refcounts::Run> Refcounts::take_below(uint64_t limit, uint64_t wanted) {
  limit = std::min(limit, table_.end());
  Run run{};
  for (; hint_ < limit; ++hint_) {
    ASSIGN_OR_RETURN(const uint64_t count, table_.count_of(hint_));
    if (count == 0) break;
  }
  run.first = HostCluster(hint_);
  for (; hint_ < limit && run.count < wanted; ++hint_, ++run.count) {
    ASSIGN_OR_RETURN(RefcountTable::Block* const block,
                     table_.find_block(table_.block_index(hint_)));
    // A range without a block would first need one, at its start.
    if (!block) break;
    if (block->get(table_.index_in_block(hint_)) != 0) break;
    table_.set_count(*block, hint_, 1);
  }
  return run;
}

Result<Refcounts::Run> Refcounts::allocate_below(HostCluster limit, uint64_t wanted) {
  const MutexLock lock(mutex_);
  return take_below(limit.value(), wanted);
}

Result<ClusterRun> Refcounts::find_run(uint64_t from, uint64_t limit, uint64_t least,
                                       uint64_t most) {
  ClusterRun run;
  const uint64_t end = std::min(limit, table_.end());
  for (uint64_t cluster = from; cluster < end; ++cluster) {
    // A new block is put into the first cluster of its range, which is not free then.
    RETURN_IF_ERROR(table_.require_block(table_.block_index(cluster)));
    ASSIGN_OR_RETURN(const uint64_t count, table_.count_of(cluster));
    if (count == 0) {
      if (run.count == 0) run.first = HostCluster(cluster);
      if (++run.count == most) return run;
    } else if (run.count >= least) {
      return run;
    } else {
      run.count = 0;
    }
  }
  return run.count >= least ? run : ClusterRun{};
}

Result<ClusterRun> Refcounts::find_free(HostCluster from, HostCluster limit, uint64_t least,
                                        uint64_t most) {
  const MutexLock lock(mutex_);
  return find_run(from.value(), limit.value(), least, most);
}

Result<ClusterRun> Refcounts::find_past_end(uint64_t wanted) {
  const MutexLock lock(mutex_);
  // New blocks, and a new table, go to the end.
  uint64_t first = table_.end();
  RETURN_IF_ERROR(table_.require_block(table_.block_index(first)));
  while (first != table_.end()) {
    first = table_.end();
    RETURN_IF_ERROR(table_.require_block(table_.block_index(first)));
  }
  const uint64_t range_end = (table_.block_index(first) + 1) * table_.range();
  const ClusterRun run{HostCluster(first), std::min(wanted, range_end - first)};
  RETURN_IF_ERROR(release_run(run));
  table_.extend(run.end().value());
  return run;
}

// Releases clusters that were allocated and are not needed.
Result<void> Refcounts::release_run(const ClusterRun& run) {
  for (uint64_t cluster = run.first.value(); cluster < run.end().value(); ++cluster) {
    ASSIGN_OR_RETURN(RefcountTable::Block* const block,
                     table_.find_block(table_.block_index(cluster)));
    table_.set_count(*block, cluster, 0);
  }
  hint_ = std::min(hint_, run.first.value());
  run_hint_ = std::min(run_hint_, run.first.value());
  return {};
}

Result<uint64_t> Refcounts::count_used(HostCluster end) {
  const MutexLock lock(mutex_);
  uint64_t used = 0;
  for (uint64_t cluster = 0; cluster < end.value();) {
    const uint64_t index = table_.block_index(cluster);
    const uint64_t stop = std::min((index + 1) * table_.range(), end.value());
    ASSIGN_OR_RETURN(const RefcountTable::Block* const block, table_.find_block(index));
    for (uint64_t i = 0; block && i < stop - cluster; ++i) used += block->get(i) != 0;
    cluster = stop;
  }
  return used;
}

std::vector<ClusterRun> Refcounts::own_clusters() {
  const MutexLock lock(mutex_);
  std::vector<ClusterRun> runs{table_.clusters()};
  for (uint64_t index = 0; index < table_.size(); ++index)
    if (table_.has_block(index)) runs.push_back({table_.block_cluster(index), 1});
  return runs;
}

Result<void> Refcounts::move_table_below(HostCluster limit) {
  const MutexLock lock(mutex_);
  const ClusterRun old = table_.clusters();
  if (old.end() <= limit) return {};
  ASSIGN_OR_RETURN(const ClusterRun run, find_run(0, limit.value(), old.count, old.count));
  if (run.count == 0) return {};
  RETURN_IF_ERROR(count_one(run));
  table_.move(run.first);
  return {};
}

Result<void> Refcounts::move_blocks_below(HostCluster limit, std::vector<ClusterRun>& old) {
  const MutexLock lock(mutex_);
  uint64_t from = 0;
  for (uint64_t index = table_.size(); index-- > 0;) {
    const HostCluster at = table_.block_cluster(index);
    if (!table_.has_block(index)) continue;
    if (at < limit && index * table_.range() < limit.value()) continue;
    ASSIGN_OR_RETURN(const bool unneeded, table_.counts_only_itself(index));
    if (unneeded) {
      table_.drop_block(index);
      if (table_.block_index(at.value()) != index) old.push_back({at, 1});
      continue;
    }
    if (at < limit) continue;
    ASSIGN_OR_RETURN(const ClusterRun run, find_run(from, limit.value(), 1, 1));
    if (run.count == 0) return {};
    from = run.end().value();
    RETURN_IF_ERROR(count_one(run));
    RETURN_IF_ERROR(table_.move_block(index, run.first));
    old.push_back({at, 1});
  }
  return {};
}

Result<void> Refcounts::release(HostCluster first, uint64_t count, std::vector<ClusterRun>& freed) {
  const MutexLock lock(mutex_);
  for (uint64_t cluster = first.value(); cluster < first.value() + count; ++cluster) {
    ASSIGN_OR_RETURN(RefcountTable::Block* const block,
                     table_.find_block(table_.block_index(cluster)));
    const uint64_t old = block ? block->get(table_.index_in_block(cluster)) : 0;
    if (old == 0)
      return fail(Error::corrupt(
          fmt::format("{}: cluster {:#x} is referenced, but its refcount is 0: run a check",
                      storage_->name(), geometry_.start_of(HostCluster(cluster)).value())));
    table_.set_count(*block, cluster, old - 1);
    if (old != 1) continue;
    hint_ = std::min(hint_, cluster);
    run_hint_ = std::min(run_hint_, cluster);
    if (!freed.empty() && freed.back().end() == HostCluster(cluster))
      ++freed.back().count;
    else
      freed.push_back({HostCluster(cluster), 1});
  }
  return {};
}

Result<HostCluster> Refcounts::end_of_use() {
  const MutexLock lock(mutex_);
  const uint64_t range = table_.range();
  for (uint64_t index = table_.block_index(table_.end() - 1) + 1; index-- > 0;) {
    ASSIGN_OR_RETURN(const RefcountTable::Block* const block, table_.find_block(index));
    if (!block) continue;
    for (uint64_t i = std::min(range, table_.end() - index * range); i-- > 0;)
      if (block->get(i) != 0) return HostCluster(index * range + i + 1);
  }
  return HostCluster(0);
}

void Refcounts::truncate(HostCluster end) {
  const MutexLock lock(mutex_);
  table_.truncate(end.value());
  hint_ = std::min(hint_, table_.end());
  run_hint_ = std::min(run_hint_, table_.end());
}

bool Refcounts::changes_are_due() {
  const MutexLock lock(mutex_);
  return table_.changes_are_due();
}

Refcounts::Changes Refcounts::take_changes() {
  const MutexLock lock(mutex_);
  return table_.take_changes();
}

void Refcounts::committed() {
  const MutexLock lock(mutex_);
  table_.committed();
}

void Refcounts::commit_failed(const Changes& changes) {
  const MutexLock lock(mutex_);
  table_.commit_failed(changes);
}

}  // namespace vc::qcow2
