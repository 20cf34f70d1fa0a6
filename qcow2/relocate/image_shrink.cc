#include "qcow2/relocate/image_shrink.h"

#include <algorithm>

#include "qcow2/refcounts/refcount_writer.h"
#include "qcow2/relocate/unknown_autoclear.h"

namespace vc::qcow2 {

namespace {

// The most rounds.  The second one uses free clusters that the first one has left: between streams,
// and for tables that need a run of clusters.
constexpr unsigned kMostShrinkRounds = 8;

uint64_t sum_of_times(std::span<const ClusterPointer> pointers) {
  uint64_t times = 0;
  for (const ClusterPointer& it : pointers) times += it.times;
  return times;
}

}  // namespace

Result<std::unique_ptr<ImageShrink>> ImageShrink::open(std::shared_ptr<Storage> storage,
                                                       std::shared_ptr<Storage> data_file,
                                                       std::shared_ptr<const Encryption> encryption,
                                                       Options options) {
  std::unique_ptr<ImageShrink> it(new ImageShrink(std::move(storage), std::move(data_file),
                                                  std::move(encryption), std::move(options)));
  RETURN_IF_ERROR(it->reload());
  ASSIGN_OR_RETURN(it->refcounts_, Refcounts::load(it->storage_, it->image_->header()));
  const bool own_data = !it->image_->header().has_data_file();
  it->moves_ = std::make_unique<ClusterMoves>(
      it->storage_, own_data ? it->image_->shared_data_storage() : it->storage_,
      it->image_->geometry(), *it->refcounts_);
  return it;
}

Result<void> ImageShrink::reload() {
  ASSIGN_OR_RETURN(Header header, Header::read(*storage_, Header::Purpose::kUnlock));
  ASSIGN_OR_RETURN(image_, Image::open(storage_, std::move(header), data_file_,
                                       std::make_shared<TableCache>(0), encryption_));
  return {};
}

Result<uint64_t> ImageShrink::length() const {
  ASSIGN_OR_RETURN(const HostCluster end, refcounts_->end_of_use());
  return end.value();
}

Result<uint64_t> ImageShrink::used() const {
  ASSIGN_OR_RETURN(const HostCluster end, refcounts_->end_of_use());
  return refcounts_->count_used(end);
}

// Returns the end of the last used cluster that stays.
Result<HostCluster> ImageShrink::end_of_staying() const {
  if (!options_.staying) return HostCluster(0);
  HostCluster end = options_.staying->end();
  // A free neighbour of a leak.
  while (end > HostCluster(0)) {
    ASSIGN_OR_RETURN(const uint64_t count, refcounts_->get(end - 1));
    if (count > 0) break;
    end = end - 1;
  }
  return end;
}

Result<uint64_t> ImageShrink::shortest(uint64_t freed) const {
  ASSIGN_OR_RETURN(const uint64_t all, used());
  ASSIGN_OR_RETURN(const HostCluster end, end_of_staying());
  return std::max(all - std::min(all, freed), end.value());
}

Result<uint64_t> ImageShrink::to_move() const {
  ASSIGN_OR_RETURN(const uint64_t all, used());
  ASSIGN_OR_RETURN(const uint64_t target, shortest());
  ASSIGN_OR_RETURN(const uint64_t stay, refcounts_->count_used(HostCluster(target)));
  return (all - stay) << image_->geometry().cluster_bits();
}

bool ImageShrink::check_cancelled() {
  stopped_ = stopped_ || cancel_->requested();
  return stopped_;
}

Result<void> ImageShrink::check_key() const {
  const auto& key = image_->encryption();
  if (!key || !key->is_locked() || !key->is_luks() || image_->header().has_data_file()) return {};
  return fail(Error::unsupported(
      image_->name() +
      ": is encrypted, and its data can move only with the key, since the encryption of a cluster "
      "depends on its place: add the passphrase (--key)"));
}

Result<void> ImageShrink::run(const Cancel& cancel) {
  RETURN_IF_ERROR(check_key());
  cancel_ = &cancel;
  ASSIGN_OR_RETURN(total_, to_move());
  ASSIGN_OR_RETURN(uint64_t end, length());
  ASSIGN_OR_RETURN(uint64_t target, shortest());
  if (end > target) RETURN_IF_ERROR(clear_unknown_autoclear(*storage_, image_->header()));
  for (unsigned round = 0; round < kMostShrinkRounds && end > target && !stopped_; ++round) {
    const uint64_t unplaced = unplaced_;
    const uint64_t moved_before = moved();
    const uint64_t used_before = target;
    RETURN_IF_ERROR(run_round(HostCluster(target)));
    RETURN_IF_ERROR(truncate());
    ASSIGN_OR_RETURN(end, length());
    ASSIGN_OR_RETURN(target, shortest());
    // Streams may need more clusters than before, so that others find no place in this round.
    // A refcount block that is no longer needed leaves a free cluster without a move.
    const bool has_changed = moved() != moved_before || target != used_before;
    if (!has_changed && (unplaced_ == 0 || unplaced_ == unplaced)) break;
  }
  return truncate();
}

// Moves what is past `target` before it, as far as there is space.
Result<void> ImageShrink::run_round(HostCluster target) {
  // Tables that found no run of free clusters get the last ones before `target`, in the next round.
  const uint64_t room = std::min(unplaced_, target.value() / 2);
  unplaced_ = 0;
  RETURN_IF_ERROR(move_refcount_table(target));
  RETURN_IF_ERROR(move_tables(Level::kRoots, target));
  RETURN_IF_ERROR(move_tables(Level::kTables, target));
  ASSIGN_OR_RETURN(const HostCluster fixed, end_of_staying());
  const HostCluster end = std::max(target - (unplaced_ > 0 ? std::max(room, unplaced_) : 0), fixed);
  RETURN_IF_ERROR(move_single(Level::kInner, end));
  RETURN_IF_ERROR(move_single(Level::kClusters, end));
  return move_refcount_blocks(end);
}

Result<void> ImageShrink::commit() {
  RETURN_IF_ERROR(moves_->commit());
  if (options_.progress) options_.progress(std::min(moved(), total_), total_);
  return {};
}

Result<void> ImageShrink::move_refcount_table(HostCluster target) {
  if (check_cancelled()) return {};
  const ClusterRun table = refcounts_->own_clusters().front();
  RETURN_IF_ERROR(refcounts_->move_table_below(target));
  RETURN_IF_ERROR(write_refcounts(*storage_, *refcounts_));
  if (table.end() > target && refcounts_->own_clusters().front().first == table.first)
    unplaced_ += table.count;
  return {};
}

// Moves tables, each of which needs a run of clusters.
Result<void> ImageShrink::move_tables(Level level, HostCluster target) {
  if (check_cancelled()) return {};
  RETURN_IF_ERROR(reload());
  const Geometry& geometry = image_->geometry();
  ASSIGN_OR_RETURN(const References references, References::find(*image_));
  uint64_t planned = 0;  // bytes
  // No run of `sought` or more free clusters begins before `search_from`.
  uint64_t sought = 0;
  HostCluster search_from;
  const auto move = [&](const References::Pointer& it) -> Result<void> {
    const HostCluster first = geometry.host_cluster_of(HostOffset(it.word));
    const uint64_t count = geometry.clusters_for(it.bytes);
    if (first + count <= target || check_cancelled()) return {};
    if (count < sought) search_from = HostCluster(0);
    ASSIGN_OR_RETURN(const ClusterRun run,
                     refcounts_->find_free(search_from, target, count, count));
    sought = count;
    search_from = run.count == 0 ? target : run.first;
    if (run.count == 0) {
      unplaced_ += count;
      return {};
    }
    RETURN_IF_ERROR(moves_->move({first, count}, run.first, 1, ClusterMoves::Content::kTables));
    moves_->point(it.at, it.word, geometry.start_of(run.first).value());
    planned += count << geometry.cluster_bits();
    if (planned < options_.batch_bytes) return {};
    planned = 0;
    return commit();
  };
  RETURN_IF_ERROR(references.visit_pointers(level, move));
  return commit();
}

// Moves single clusters, and streams.
Result<void> ImageShrink::move_single(Level level, HostCluster target) {
  const bool streams = level == Level::kClusters;
  const Geometry geometry = image_->geometry();  // reload () replaces image_
  target_ = target;
  search_from_ = HostCluster(0);
  streams_.emplace(*refcounts_, geometry, target,
                   std::max<uint64_t>(options_.batch_bytes >> geometry.cluster_bits(), 1));
  content_ = streams ? ClusterMoves::Content::kGuestData : ClusterMoves::Content::kTables;
  for (bool more = true; more && !check_cancelled();) {
    RETURN_IF_ERROR(reload());
    ASSIGN_OR_RETURN(const References references, References::find(*image_));
    PointerWindow window(geometry, PointerWindow::End::kLast, target, options_.most_pointers,
                         streams);
    RETURN_IF_ERROR(references.visit_pointers(
        level, [&](const References::Pointer& it) { return window.add(it); }));
    ASSIGN_OR_RETURN(const auto pointers, window.take());
    ASSIGN_OR_RETURN(more, move_window(window, pointers, streams));
    more = more && window.bound() > target;
  }
  return {};
}

// Returns false if there is no more space before the target.
Result<bool> ImageShrink::move_window(const PointerWindow& window,
                                      const std::vector<ClusterPointer>& pointers, bool streams) {
  const uint64_t cluster_size = image_->geometry().cluster_size();
  for (size_t end = pointers.size(); end > 0 && !check_cancelled();) {
    // The batch begins with all pointers to a cluster.
    size_t begin = end;
    uint64_t planned = 0;
    while (begin > 0 && planned < options_.batch_bytes) {
      --begin;
      while (begin > 0 && window.target(pointers[begin - 1]) == window.target(pointers[begin]))
        --begin;
      planned += cluster_size;
    }
    ASSIGN_OR_RETURN(const bool more,
                     move_batch(window, std::span(pointers).subspan(begin, end - begin), streams));
    if (!more) return false;
    end = begin;
  }
  return true;
}

Result<bool> ImageShrink::move_batch(const PointerWindow& window,
                                     std::span<const ClusterPointer> pointers, bool streams) {
  streams_->restart();
  bool space = true;
  for (size_t i = 0; i < pointers.size() && space;) {
    const HostOffset target = window.target(pointers[i]);
    const bool compressed = pointers[i].compressed(streams);
    size_t end = i;
    while (end < pointers.size() && window.target(pointers[end]) == target &&
           (compressed ? ((pointers[end].word ^ pointers[i].word) & ~kEntryCopied) == 0
                       : !pointers[end].compressed(streams)))
      ++end;
    const auto group = pointers.subspan(i, end - i);
    const unsigned bits = image_->geometry().cluster_bits();
    if (compressed) {
      // A cluster may fit where a stream does not.
      RETURN_IF_ERROR(move_stream(CompressedDescriptor::decode(group[0].word, bits), group));
    } else {
      ASSIGN_OR_RETURN(space, move_cluster(image_->geometry().host_cluster_of(target), group));
    }
    i = end;
  }
  RETURN_IF_ERROR(commit());
  return space;
}

Result<bool> ImageShrink::move_cluster(HostCluster from, std::span<const ClusterPointer> pointers) {
  const Geometry& geometry = image_->geometry();
  const uint64_t times = sum_of_times(pointers);
  RETURN_IF_ERROR(moves_->require_all_known(from, times));
  ASSIGN_OR_RETURN(const ClusterRun run, refcounts_->find_free(search_from_, target_, 1, 1));
  if (run.count == 0) return false;
  search_from_ = run.end();
  RETURN_IF_ERROR(moves_->move({from, 1}, run.first, times, content_));
  for (const ClusterPointer& it : pointers)
    moves_->point(it.at, it.word,
                  (it.word & ~kEntryOffsetMask) | geometry.start_of(run.first).value());
  return true;
}

// Moves a stream, if there is a place.
Result<void> ImageShrink::move_stream(const CompressedDescriptor& stream,
                                      std::span<const ClusterPointer> pointers) {
  const uint64_t times = sum_of_times(pointers);
  const uint64_t bytes = stream.readable_bytes();
  ASSIGN_OR_RETURN(const auto place, streams_->place(stream, times));
  if (!place) return {};
  RETURN_IF_ERROR(moves_->add_references(*place, bytes, times));
  moves_->drop_references(stream.offset, bytes, times);
  const uint64_t in_sector = stream.offset.value() % Geometry::kSectorSize;
  moves_->copy_sectors(stream.offset - in_sector, *place - in_sector, in_sector + bytes);
  const CompressedDescriptor moved{*place, stream.sectors};
  for (const ClusterPointer& it : pointers)
    moves_->point(it.at, it.word, moved.encode(image_->geometry().cluster_bits()));
  return {};
}

// Moves refcount blocks, and drops those that count nothing any more.
Result<void> ImageShrink::move_refcount_blocks(HostCluster target) {
  if (check_cancelled()) return {};
  // The lower counts of what has moved must not be needed by the blocks that are dropped.
  RETURN_IF_ERROR(write_refcounts(*storage_, *refcounts_));
  std::vector<ClusterRun> old;
  RETURN_IF_ERROR(refcounts_->move_blocks_below(target, old));
  RETURN_IF_ERROR(write_refcounts(*storage_, *refcounts_));
  std::vector<ClusterRun> freed;
  for (const ClusterRun& run : old)
    RETURN_IF_ERROR(refcounts_->release(run.first, run.count, freed));
  for (const ClusterRun& run : freed)
    storage_->discard(image_->geometry().start_of(run.first),
                      run.count << image_->geometry().cluster_bits());
  return {};
}

Result<void> ImageShrink::truncate() {
  RETURN_IF_ERROR(write_refcounts(*storage_, *refcounts_));
  ASSIGN_OR_RETURN(const HostCluster end, refcounts_->end_of_use());
  ASSIGN_OR_RETURN(const uint64_t size, storage_->size());
  const uint64_t wanted = image_->geometry().start_of(end).value();
  if (size != wanted) {
    RETURN_IF_ERROR(storage_->resize(wanted));
    refcounts_->truncate(end);
  }
  return storage_->flush();
}

}  // namespace vc::qcow2
