// A writable disk: allocation, copy-on-write, zeroing, discarding, and the order of writes to the
// file.
//
// The state of the file at any time, as a crash would leave it:
//
//   1. Guest data is written directly to clusters that nothing in the file refers to.
//   2. The new mapping is a change in memory (ClusterMap), and so are the new refcounts
//      (Refcounts).
//   3. A commit writes
//        refcounts and new L2 tables | refcount table | header | L2 entries, L1 entries
//      with a flush at each bar: so each entry in the file refers to a cluster that is counted and
//      whose content (data or table) is in the file.
//      With lazy refcounts the image is marked dirty before its first change, so that they can be
//      rebuilt (in_place_rebuild.h), and the first step omits them.
//   4. The clusters that a change releases become free only after the last flush. Once no request
//      reads them any more (Epochs), they are punched out of the file and may be reused; their
//      lower refcounts are part of the next commit. A crash before that only leaks them.
//
// A flush is a commit.  Without one, changes stay in memory up to a limit.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/cluster_map.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/write/bitmap_keeper.h"
#include "qcow2/write/epochs.h"
#include "qcow2/write/guest_locks.h"
#include "qcow2/write/writable_map.h"
#include "storage/offset.h"
#include "storage/shared_flush.h"

namespace vc::qcow2 {

// All member functions except close () are thread-safe.  Concurrent requests that overlap have no
// order, but none is lost, and none changes a byte outside its range.
class DiskWriter {
 public:
  struct Options {
    bool discard = true;  // deallocate freed clusters in the filesystem
    uint64_t freed_before =
        0;  // clusters freed by the caller, which close () may use as free space
    uint64_t changes_limit = 16 << 20;  // bytes of changed L2 tables before a commit
    // The caller only moves data: the disk reads as before, so that its dirty bitmaps stay true.
    bool keeps_content = false;
  };

  struct Statistics {
    uint64_t allocated = 0;  // clusters
    uint64_t zeroed = 0;     // clusters zeroed by their entry alone
    uint64_t freed = 0;      // clusters
    uint64_t truncated = 0;  // bytes truncated from the file
  };

  // `storage` is the storage of the image, `header` its header, `backing` the layers below it.
  // `encryption` is that of an encrypted image; if it is locked, only its metadata can change.
  // First repairs an image that is marked dirty: see in_place_rebuild.h.
  static Result<std::unique_ptr<DiskWriter>> open(
      std::shared_ptr<Storage> storage, Header header, std::shared_ptr<Storage> data_file,
      std::vector<std::shared_ptr<Layer>> backing, std::shared_ptr<TableCache> cache,
      const Options& options, std::shared_ptr<const Encryption> encryption = nullptr);

  uint64_t size() const { return disk_->size(); }
  const Disk& disk() const { return *disk_; }
  const Image& image() const { return *image_; }

  // Ranges must be within the disk.
  Result<void> read(GuestOffset at, std::span<std::byte> to) const;
  Result<void> map(GuestOffset at, uint64_t length, std::vector<Extent>& out,
                   size_t max_extents) const;
  Result<void> write(GuestOffset at, std::span<const std::byte> from);

  // Zeroes the range.  Whole clusters (and subclusters) only change their entry, and are
  // deallocated if `unmap`; the rest is written.
  Result<void> zero(GuestOffset at, uint64_t length, bool unmap);
  // Returns whether zero () would write data for this range.
  Result<bool> zero_is_slow(GuestOffset at, uint64_t length) const;

  // Zeroes and deallocates the whole clusters (and subclusters) in the range; the rest is
  // unchanged.
  Result<void> discard(GuestOffset at, uint64_t length);

  // Flushes: all completed requests are on disk when it returns.
  Result<void> flush();

  // Commits, deallocates freed clusters, moves clusters from the end of the file into holes if that
  // makes the file clearly shorter (at most as many as were freed since the open), and truncates
  // the file.  No request may run or follow.
  //
  // Stores the persistent bitmaps before that (bitmap_keeper.h).  If that fails, the image is
  // valid, and the enabled bitmaps stay in use, and so are lost.
  Result<void> close();

  Statistics statistics() const;

 private:
  DiskWriter(std::shared_ptr<Image> image, const Options& options)
      : image_(std::move(image)),
        geometry_(image_->geometry()),
        options_(options),
        lazy_((image_->header().compatible_features & compatible::kLazyRefcounts) != 0),
        freed_(options.freed_before) {}

  // Marks the image corrupt, and returns the error.  The caller must not hold the map's lock.
  Result<void> refuse_table(GuestOffset at, const OverlapCheck::Hit& hit);
  Result<void> mark_corrupt();

  bool has_backing() const { return disk_->layers().size() > 1; }
  bool has_data_file() const { return image_->header().has_data_file(); }
  // Data clusters cannot move in an external data file, nor without the key: initial vectors follow
  // the offsets.
  bool can_move_data() const {
    const auto& encryption = image_->encryption();
    return !has_data_file() && !(encryption && encryption->is_locked());
  }
  bool extended() const { return geometry_.extended_l2(); }

  // copy_on_write.cc
  // Space for up to the requested number of guest clusters.
  struct Place {
    HostOffset host;
    uint64_t clusters;
    bool allocated;  // else they had it already
    bool fresh;      // reads as zeros
  };
  Result<Place> find_place(ClusterIndex first, std::span<const L2Entry> old);
  // Copies the guest's view of a part of a cluster to its new place.
  Result<void> copy_old(GuestOffset begin, GuestOffset end, HostOffset host, bool fresh);
  GuestOffset end_of_hole(GuestOffset begin, L2Entry entry, GuestOffset at) const;
  Result<uint64_t> write_allocating(GuestOffset at, std::span<const std::byte> from);

  Result<void> write_range(GuestOffset at, std::span<const std::byte> from);
  Result<bool> reads_as_zero(GuestOffset at, uint64_t length) const;

  // zeroing.cc
  Result<bool> part_is_slow(GuestOffset at, GuestOffset end) const;
  Result<void> zero_clusters(ClusterIndex first, ClusterIndex end, bool unmap);
  Result<void> zero_part(GuestOffset at, uint64_t length, bool unmap);
  Result<void> zero_subclusters(GuestOffset at, uint64_t length, bool unmap);
  Result<void> write_zeros(GuestOffset at, uint64_t length);
  Result<void> write_where_not_zero(GuestOffset at, GuestOffset end);

  // discard.cc
  Result<void> discard_part(GuestOffset at, GuestOffset end);

  // shrink.cc
  Result<void> shrink();
  Result<HostCluster> end_after_shrink(HostCluster end);
  template <typename Visit>
  Result<void> each_owned_slice(Visit visit);
  Result<void> move_mapped(HostCluster target);
  Result<void> move_slice(ClusterIndex first, HostCluster target, uint64_t& moved);
  Result<void> move_l1_table(HostCluster target);

  // Records that a range may read otherwise than before.
  void set_changed(GuestOffset at, uint64_t length) {
    if (bitmaps_ && !options_.keeps_content) bitmaps_->add(at, length);
  }
  // Opens the directory of bitmaps, if its feature bit is set and it is not damaged.
  Result<void> open_bitmaps();
  Result<void> store_bitmaps();

  // commit.cc
  Result<void> prepare_header();
  Result<void> write_features(bool dirty);
  // `all`: includes lazy refcounts.
  Result<void> commit(bool all);
  Result<void> write_changes(const ClusterMap::Changes& map, const std::vector<uint64_t>& l1,
                             const Refcounts::Changes& refcounts, bool& tables_durable)
      REQUIRES(commit_mutex_);
  Result<void> flush_files();
  Result<void> reclaim() REQUIRES(commit_mutex_);
  Result<bool> is_unused_from(HostCluster end) const;

  std::shared_ptr<Image> image_;
  const Geometry geometry_;
  const Options options_;
  const bool lazy_;  // refcounts are written at the end, and the image is dirty until then
  std::shared_ptr<Storage> storage_;
  // the external data file, or storage_; encrypts what is written to an encrypted image
  std::shared_ptr<Storage> data_;
  std::shared_ptr<ClusterMap> map_;
  HostOffset l1_table_;  // its current offset
  std::unique_ptr<Refcounts> refcounts_;
  std::unique_ptr<WritableMap> mapping_;  // of map_, in refcounts_
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<BitmapKeeper> bitmaps_;  // nullptr: the image has none that are valid

  GuestLocks guest_locks_;
  mutable Epochs epochs_;
  // Guest data would have overwritten a table: all writes fail from now on.
  std::atomic<bool> corrupt_{false};
  std::atomic<bool> header_ready_{false};  // prepare_header () has updated the header

  SharedFlush shared_flush_;

  Mutex commit_mutex_;  // one commit at a time
  struct Waiting {
    uint64_t epoch;
    WritableMap::Frees frees;
  };
  // committed, but requests may still read them
  std::deque<Waiting> waiting_ GUARDED_BY(commit_mutex_);

  mutable std::atomic<uint64_t> allocated_{0};
  mutable std::atomic<uint64_t> zeroed_{0};
  mutable std::atomic<uint64_t> freed_;
  mutable std::atomic<uint64_t> truncated_{0};
};

}  // namespace vc::qcow2
