#include "qcow2/check/refcount_check.h"

#include <algorithm>
#include <vector>

#include "qcow2/format/refcount_block.h"

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;
using Place = Finding::Place;
using Severity = Finding::Severity;

}  // namespace

void RefcountCheck::refer_blocks(ReferenceCounts& counts) {
  for (uint64_t i = 0; i < recorded_.table().size(); ++i)
    if (recorded_.table()[i] != 0) refer_block(i, counts);
}

void RefcountCheck::refer_block(uint64_t index, ReferenceCounts& counts) {
  const uint64_t entry = recorded_.table()[index];
  Finding it{};
  it.place = Place::kRefcountTable;
  it.entry = image_.header.refcount_table + index * 8;
  it.host = HostOffset(entry & ~RecordedCounts::kReservedMask);
  it.found = entry;
  it.index = index;
  it.repairable = true;
  const auto unusable = [&](Kind kind) {
    it.kind = kind;
    tally_.refcounts_unusable();
    tally_.report(it);
  };
  const auto block = recorded_.block_of(index);
  if ((entry & RecordedCounts::kReservedMask) != 0) return unusable(Kind::kRefcountTableReserved);
  if (!block) return unusable(Kind::kRefcountBlockUnaligned);
  const HostCluster cluster = geometry_.host_cluster_of(*block);
  if (cluster.value() >= image_.clusters &&
      (cluster.value() > image_.clusters || counts.get(cluster) == 0))
    return unusable(Kind::kRefcountBlockOutside);
  if (cluster < counts.begin() || cluster >= counts.end()) return;
  counts.add(cluster, 1, 1);
  it.found = std::min<uint64_t>(counts.get(cluster), max_refcount(image_.header.refcount_order));
  if (it.found == 1) return;
  it.place = Place::kRefcountBlock;
  it.kind = Kind::kRefcountBlockShared;
  tally_.refcounts_unusable();
  tally_.report(it, true);
}

Result<void> RefcountCheck::compare(const ReferenceCounts& counts) {
  // The clusters of the file, and one more if it is referenced.
  const uint64_t end = image_.clusters + (counts.get(HostCluster(image_.clusters)) > 0 ? 1 : 0);
  const uint64_t limit = std::min(end, counts.end().value());
  const uint64_t per_block = recorded_.per_block();
  std::vector<uint32_t> referred(std::min(per_block, ReferenceCounts::kPageClusters));
  std::vector<std::byte> block(geometry_.cluster_size());
  uint64_t block_index = UINT64_MAX;  // of `block`
  bool block_there = false, block_known = true;
  uint64_t at = counts.begin().value();
  while (at < limit) {
    const uint64_t next = recorded_.next_block(at / per_block);
    const uint64_t block_begin =
        next < recorded_.table().size() ? next * per_block : ReferenceCounts::kNoEnd;
    at = std::max(at, std::min(counts.next_page(at), block_begin));
    if (at >= limit) break;
    const uint64_t stop =
        std::min({limit, (at / per_block + 1) * per_block,
                  (at / ReferenceCounts::kPageClusters + 1) * ReferenceCounts::kPageClusters});
    if (at / per_block != block_index) {
      RETURN_IF_ERROR(tally_.go_on());
      block_index = at / per_block;
      block_known = recorded_.block_of(block_index).has_value();
      const auto read = recorded_.read_block(block_index, block);
      block_there = read && *read;
      if (!read) block_known = false;
    }
    const bool any = counts.copy(HostCluster(at), std::span(referred).first(stop - at));
    for (uint64_t cluster = at; cluster < stop && (any || block_there || !block_known); ++cluster)
      compare_cluster(cluster, block_known,
                      block_there ? get_refcount(block, cluster % per_block, recorded_.order()) : 0,
                      any ? referred[cluster - at] : 0);
    at = stop;
  }
  end_run();
  return {};
}

void RefcountCheck::compare_cluster(uint64_t cluster, bool known, uint64_t recorded,
                                    uint64_t references) {
  const uint64_t most = max_refcount(image_.header.refcount_order);
  if (references > most) {
    Finding it{};
    it.kind = Kind::kRefcountOverflow;
    it.times = references - most;
    it.host = HostOffset(cluster << geometry_.cluster_bits());
    it.found = references;
    it.expected = most;
    tally_.report(it, true);
    references = most;
  }
  if (!known) {
    add_to_run(Kind::kRefcountUnknown, Severity::kCheckError, cluster, 0, references);
    return;
  }
  if (recorded != 0 || references != 0) highest_ = cluster;
  if (recorded == references) return;
  if (recorded == 0) tally_.sums().needs_rebuild = true;
  if (recorded > references)
    add_to_run(Kind::kLeak, Severity::kLeak, cluster, recorded, references);
  else
    add_to_run(Kind::kRefcountTooLow, Severity::kCorruption, cluster, recorded, references);
}

// Merges findings about consecutive clusters with the same damage into one.
void RefcountCheck::add_to_run(Kind kind, Severity severity, uint64_t cluster, uint64_t found,
                               uint64_t expected) {
  const HostOffset at(cluster << geometry_.cluster_bits());
  if (run_ && run_->kind == kind && run_->found == found && run_->expected == expected &&
      run_->host + (run_->times << geometry_.cluster_bits()) == at) {
    ++run_->times;
    return;
  }
  end_run();
  run_ = Finding{};
  run_->kind = kind;
  run_->severity = severity;
  run_->host = at;
  run_->found = found;
  run_->expected = expected;
  run_->repairable = true;
}

void RefcountCheck::end_run() {
  if (run_) tally_.report(*run_, true);
  run_.reset();
}

}  // namespace vc::qcow2
