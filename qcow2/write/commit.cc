// Writes the changes of a DiskWriter to the file: see the steps at the top of disk_writer.h.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/byte_order.h"
#include "base/mutex.h"
#include "qcow2/format/header_fields.h"
#include "qcow2/refcounts/references.h"
#include "qcow2/write/disk_writer.h"

namespace vc::qcow2 {

// Prepares the header before the first change: marks enabled bitmaps in use, and clears autoclear
// features that the writer does not maintain (damaged bitmaps, and unknown ones).  With lazy
// refcounts marks the image dirty, since they are written only at the end.
Result<void> DiskWriter::prepare_header() {
  if (corrupt_.load(std::memory_order_relaxed))
    return fail(Error::corrupt(
        image_->name() +
        ": is damaged, and marked corrupt: repair it first (virt-compact check -r all)"));
  if (header_ready_.load(std::memory_order_acquire)) return {};
  const MutexLock lock(commit_mutex_);
  if (header_ready_) return {};
  if (bitmaps_ && !options_.keeps_content) RETURN_IF_ERROR(bitmaps_->begin());
  RETURN_IF_ERROR(write_features(lazy_));
  header_ready_.store(true, std::memory_order_release);
  return {};
}

// Writes the feature fields for the time of writing, or (not `dirty`) for after it.
Result<void> DiskWriter::write_features(bool dirty) {
  const Header& header = image_->header();
  // Raw data stays raw: all writes and zeroes are applied to the data file, too.
  const uint64_t kept =
      header.autoclear_features & (autoclear::kDataFileRaw | (bitmaps_ ? autoclear::kBitmaps : 0));
  if (header.version < 3 || (kept == header.autoclear_features && !lazy_)) return {};
  const uint64_t marks =
      (dirty ? incompatible::kDirty : 0) | (corrupt_ ? incompatible::kCorrupt : 0);
  RETURN_IF_ERROR(write_feature_fields(*storage_, header.incompatible_features | marks,
                                       header.compatible_features, kept));
  return storage_->flush();
}

// From now on all writes fail, and QEMU opens the image read-only.
Result<void> DiskWriter::mark_corrupt() {
  const MutexLock lock(commit_mutex_);
  if (corrupt_.exchange(true) || image_->header().version < 3) return {};
  std::array<std::byte, 8> field{};
  store_be64(field.data(), image_->header().incompatible_features | incompatible::kCorrupt |
                               (lazy_ && header_ready_ ? incompatible::kDirty : 0));
  RETURN_IF_ERROR(storage_->write(HostOffset(header_field::kIncompatible), field));
  return storage_->flush();
}

Result<void> DiskWriter::flush_files() {
  if (has_data_file()) RETURN_IF_ERROR(data_->flush());
  return storage_->flush();
}

Result<void> DiskWriter::write_changes(const ClusterMap::Changes& map,
                                       const std::vector<uint64_t>& l1,
                                       const Refcounts::Changes& refcounts, bool& tables_durable) {
  for (const auto& write : refcounts.blocks)
    RETURN_IF_ERROR(storage_->write(write.at, write.bytes));
  for (const auto& write : map.new_tables) RETURN_IF_ERROR(storage_->write(write.at, *write.bytes));
  RETURN_IF_ERROR(flush_files());
  if (!refcounts.table.empty()) {
    for (const auto& write : refcounts.table)
      RETURN_IF_ERROR(storage_->write(write.at, write.bytes));
    RETURN_IF_ERROR(storage_->flush());
  }
  if (refcounts.table_moved) {
    RETURN_IF_ERROR(
        write_refcount_table_fields(*storage_, refcounts.table_offset, refcounts.table_clusters));
    RETURN_IF_ERROR(storage_->flush());
  }
  tables_durable = true;
  if (map.slices.empty() && l1.empty()) return {};
  for (const auto& write : map.slices) RETURN_IF_ERROR(storage_->write(write.at, *write.bytes));
  for (size_t i = 0; i < l1.size(); ++i) {
    std::array<std::byte, 8> entry{};
    store_be64(entry.data(), l1[i]);
    RETURN_IF_ERROR(storage_->write(l1_table_ + map.l1_indices[i] * 8, entry));
  }
  return storage_->flush();
}

Result<void> DiskWriter::commit(bool all) {
  const MutexLock commit_lock(commit_mutex_);
  ClusterMap::Changes changes;
  std::vector<uint64_t> l1;
  WritableMap::Frees frees;
  {
    const auto lock = map_->lock_exclusive();
    changes = map_->take_changes();
    for (const uint64_t index : changes.l1_indices) l1.push_back(map_->l1_entry(index));
    frees = mapping_->take_unlinked();
  }
  // Taken after the mapping, so that the refcounts include all of its clusters.
  Refcounts::Changes refcounts;
  if (all || !lazy_ || refcounts_->changes_are_due()) refcounts = refcounts_->take_changes();

  bool tables_durable = false;
  if (auto written = write_changes(changes, l1, refcounts, tables_durable); !written) {
    const auto lock = map_->lock_exclusive();
    map_->commit_failed(changes, tables_durable);
    mapping_->put_back(frees);
    refcounts_->commit_failed(refcounts);
    return written;
  }
  {
    const auto lock = map_->lock_exclusive();
    map_->committed(changes);
    for (const ClusterRun& table : refcounts.old_tables)
      mapping_->erase_table(table.first, table.count);
  }
  refcounts_->committed();
  for (const ClusterRun& table : refcounts.old_tables) frees.push_back(table);
  if (!frees.empty()) waiting_.push_back({epochs_.advance(), std::move(frees)});
  return reclaim();
}

// Frees clusters that nothing in the file refers to and no request reads.
Result<void> DiskWriter::reclaim() {
  std::map<uint64_t, uint64_t> references;  // to be removed, by cluster
  const uint64_t oldest = epochs_.oldest();
  while (!waiting_.empty() && waiting_.front().epoch < oldest) {
    for (const ClusterRun& freed : waiting_.front().frees)
      for (uint64_t i = 0; i < freed.count; ++i) ++references[freed.first.value() + i];
    waiting_.pop_front();
  }
  // Punches the holes before the refcounts fall to 0: after that, another request may write to the
  // clusters.
  HostCluster begin;
  uint64_t count = 0;
  const auto punch = [&] {
    if (count > 0 && options_.discard)
      storage_->discard(geometry_.start_of(begin), count << geometry_.cluster_bits());
    count = 0;
  };
  for (const auto& [cluster, dropped] : references) {
    ASSIGN_OR_RETURN(const uint64_t counted, refcounts_->get(HostCluster(cluster)));
    if (counted != dropped) continue;
    if (count > 0 && begin + count != HostCluster(cluster)) punch();
    if (count == 0) begin = HostCluster(cluster);
    ++count;
  }
  punch();
  std::vector<ClusterRun> freed;
  for (const auto& [cluster, dropped] : references)
    for (uint64_t i = 0; i < dropped; ++i)
      RETURN_IF_ERROR(refcounts_->release(HostCluster(cluster), 1, freed));
  for (const ClusterRun& run : freed) freed_ += run.count;
  return {};
}

Result<void> DiskWriter::flush() {
  return shared_flush_.run([this] { return commit(false); });
}

// Returns true if no table refers to a cluster from `end` on, whatever its refcount.
Result<bool> DiskWriter::is_unused_from(HostCluster end) const {
  ASSIGN_OR_RETURN(Header header, Header::read(*storage_, Header::Purpose::kUnlock));
  ASSIGN_OR_RETURN(const auto image,
                   Image::open(storage_, std::move(header), has_data_file() ? data_ : nullptr,
                               std::make_shared<TableCache>(0)));
  ASSIGN_OR_RETURN(const References references, References::find(*image));
  bool nothing = true;
  RETURN_IF_ERROR(references.visit([&](HostCluster first, uint64_t count, uint64_t /*times*/) {
    if (first + count > end) nothing = false;
  }));
  return nothing;
}

Result<void> DiskWriter::close() {
  // The first commit unlinks; the second writes the lower counts of the freed clusters.
  RETURN_IF_ERROR(commit(true));
  RETURN_IF_ERROR(commit(true));
  if (!header_ready_ && options_.freed_before == 0) return {};
  // Before the file shrinks: their new places are free clusters at its start.
  const auto stored = store_bitmaps();
  Result<void> shrunk;
  if (options_.discard && freed_ > 0) {
    shrunk = shrink();
    RETURN_IF_ERROR(commit(true));
    RETURN_IF_ERROR(commit(true));
  }
  ASSIGN_OR_RETURN(const HostCluster end, refcounts_->end_of_use());
  const uint64_t wanted = geometry_.start_of(end).value();
  ASSIGN_OR_RETURN(const uint64_t size, storage_->size());
  if (size < wanted) {
    RETURN_IF_ERROR(storage_->resize(wanted));
  } else if (size > wanted && options_.discard) {
    // In a damaged image, clusters without a refcount may be in use.
    const auto unused = is_unused_from(end);
    if (unused && *unused) {
      RETURN_IF_ERROR(storage_->resize(wanted));
      truncated_ += size - wanted;
      refcounts_->truncate(end);
    }
  }
  RETURN_IF_ERROR(storage_->flush());
  if (lazy_ && header_ready_) RETURN_IF_ERROR(write_features(false));
  RETURN_IF_ERROR(with_context(
      stored,
      "the image is valid, but its dirty bitmaps are lost (they stay marked in use), so that the "
      "next backup must be a full one"));
  return with_context(shrunk, "the image is valid, but could not be shrunk");
}

// Writes the enabled bitmaps with the bits of all changes.  No request may run or follow.
Result<void> DiskWriter::store_bitmaps() {
  if (!bitmaps_ || !bitmaps_->has_begun() || corrupt_) return {};
  BitmapRewrite rewrite(storage_, geometry_, bitmaps_->directory(), *refcounts_);
  auto written = bitmaps_->store(rewrite);
  if (written) written = commit(true);
  if (!written) {
    (void)rewrite.abandon();
    return written;
  }
  RETURN_IF_ERROR(rewrite.switch_over());
  {
    const auto lock = map_->lock_exclusive();
    mapping_->erase_bitmaps(bitmaps_->directory());
    for (const ClusterRun& run : rewrite.replaced())
      for (uint64_t i = 0; i < run.count; ++i) mapping_->unlink_data(run.first + i);
  }
  // The first commit releases the old clusters; the second writes their lower counts.
  RETURN_IF_ERROR(commit(true));
  return commit(true);
}

}  // namespace vc::qcow2
