// A disk that is written: allocation, copy-on-write, zeroing, discarding, and what reaches the file
// when.
//
// Where the bytes are, at any moment, for the file as a crash would leave it:
//
//   1. Guest data goes straight to the file, to clusters that nothing in the file refers to.
//   2. The new mapping is a change in memory (ClusterMap), and so are the new refcounts
//   (Refcounts).
//   3. A commit writes  refcounts and new L2 tables | refcount table | header | L2 entries, L1
//   entries
//      with a flush at each bar: so no entry in the file refers to a cluster that is not
//      counted, or whose bytes (data or table) are not there.
//      With lazy refcounts the image is marked dirty before its first change, so that they can be
//      counted anew (recount.h), and the first step leaves them out.
//   4. Only behind the last flush are the clusters free that a change has let go.  They are punched
//   out
//      of the file and may be used again once nobody reads them any more (Epochs); their lower
//      refcounts go with the next commit.  A crash before that leaks them, which is all it can do.
//
// A flush is a commit.  Without one in between, changes stay in memory up to a limit.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/cluster_map.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/write/epochs.h"
#include "qcow2/write/guest_locks.h"
#include "qcow2/write/metadata_guard.h"
#include "storage/offset.h"
#include "storage/shared_flush.h"

namespace qcow2 {

// All member functions but close () may be called from many threads at once.  Requests that overlap
// while both are under way have no order, but none is lost, and none touches a byte that it does
// not name.
class DiskWriter {
 public:
  struct Options {
    bool discard = true;                // give freed clusters back to the filesystem
    uint64_t freed_before = 0;          // clusters, by somebody else: close () may use their room
    uint64_t changes_limit = 16 << 20;  // bytes of changed L2 tables before a commit
  };

  struct Statistics {
    uint64_t allocated = 0;  // clusters
    uint64_t zeroed = 0;     // clusters that became zeros by their entry alone
    uint64_t freed = 0;      // clusters
    uint64_t cut_off = 0;    // bytes, at the end of the file
  };

  // `storage` is that of an image whose header was read from it, `backing` the layers behind it.
  // An image that is marked dirty is mended first: see recount.h.
  static Result<std::unique_ptr<DiskWriter>> open(std::shared_ptr<Storage> storage, Header header,
                                                  std::shared_ptr<Storage> data_file,
                                                  std::vector<std::shared_ptr<Layer>> backing,
                                                  std::shared_ptr<TableCache> cache,
                                                  const Options& options);

  uint64_t size() const { return disk_->size(); }
  const Disk& disk() const { return *disk_; }
  const Image& image() const { return *image_; }

  // Ranges must lie within the disk.
  Result<void> read(GuestOffset at, std::span<std::byte> to) const;
  Result<void> map(GuestOffset at, uint64_t length, std::vector<Extent>& out,
                   size_t max_extents) const;
  Result<void> write(GuestOffset at, std::span<const std::byte> from);

  // The range reads as zeros.  Whole clusters (and subclusters) change their entry only, and lose
  // their place in the file if `unmap`; the ragged rest is written.
  Result<void> zero(GuestOffset at, uint64_t length, bool unmap);
  // Whether zero () would have to write data for this range.
  Result<bool> zero_is_slow(GuestOffset at, uint64_t length) const;

  // Whole clusters (and subclusters) in the range read as zeros and are given back; the rest of it
  // stays as it is.
  Result<void> discard(GuestOffset at, uint64_t length);

  // What was done before is on the disk when it returns.
  Result<void> flush();

  // Commits, gives back what was freed, moves what lies at the end of the file into holes if that
  // makes it clearly shorter (no more than was freed since it was opened), and cuts it.  No request
  // may be under way, and none may follow.
  Result<void> close();

  Statistics statistics() const;

 private:
  struct Freed {
    HostCluster first;
    uint64_t count;
  };
  using Frees = std::vector<Freed>;

  // Where a cluster's entry is.
  struct Slot {
    HostOffset slice;  // in the file; meaningless if there is no table
    uint64_t index;    // of the entry in the slice
    bool exists;       // the L1 entry points to a table
    bool owned;        // and to nobody else's
  };

  DiskWriter(std::shared_ptr<Image> image, const Options& options)
      : image_(std::move(image)),
        geometry_(image_->geometry()),
        options_(options),
        lazy_((image_->header().compatible_features & compatible::kLazyRefcounts) != 0),
        freed_(options.freed_before) {}

  // What holds tables now: what would be written on top of it is an error.
  Result<void> guard_tables();
  // The table that guest data at `host` would be written on top of, if any.  With the map's lock
  // held.
  std::optional<MetadataGuard::Hit> table_at(HostOffset host, uint64_t length) const;
  // Marks the image corrupt.  The error that says why.  Without the map's lock.
  Result<void> refuse_table(GuestOffset at, const MetadataGuard::Hit& hit);
  Result<void> mark_corrupt();

  bool has_backing() const { return disk_->layers().size() > 1; }
  bool has_data_file() const { return data_ != storage_; }
  bool extended() const { return geometry_.extended_l2(); }
  // The first cluster behind those whose entries are in the slice of `cluster`.
  ClusterIndex end_of_slice(ClusterIndex cluster) const;

  // All of these with the map's lock held.
  Slot slot_of(ClusterIndex cluster) const;
  Result<std::vector<L2Entry>> entries(ClusterIndex first, ClusterIndex end) const;  // of one slice
  Result<uint64_t> find_in_place(GuestOffset at, uint64_t limit, HostOffset& host) const;
  Result<void> ensure_table(ClusterIndex cluster);
  Result<void> place_table(uint64_t l1_index, HostCluster to);
  Result<void> set_entry(ClusterIndex cluster, L2Entry entry);
  void unlink(L2Entry entry);

  // Whether a write to this subcluster needs no new mapping, and whether the cluster's place in the
  // file is this disk's own, so that it may be kept when the mapping changes.
  bool in_place(L2Entry entry, unsigned subcluster) const;
  bool owns_host(L2Entry entry) const;
  // Whether the cluster has bytes of its own anywhere.
  bool has_data(L2Entry entry) const;

  // Room for up to `wanted` guest clusters from `first` on.
  struct Place {
    HostOffset host;
    uint64_t clusters;
    bool allocated;  // else it was theirs already
    bool fresh;      // reads as zeros
  };
  Result<Place> find_place(ClusterIndex first, std::span<const L2Entry> old);
  // Writes what the guest sees in a part of a cluster to its new place.
  Result<void> copy_old(GuestOffset begin, GuestOffset end, HostOffset host, bool fresh);
  GuestOffset end_of_hole(GuestOffset begin, L2Entry entry, GuestOffset at) const;
  Result<uint64_t> write_allocating(GuestOffset at, std::span<const std::byte> from);

  Result<bool> reads_as_zero(GuestOffset at, uint64_t length) const;
  Result<bool> part_is_slow(GuestOffset at, GuestOffset end) const;
  Result<void> zero_clusters(ClusterIndex first, ClusterIndex end, bool unmap);
  Result<void> zero_part(GuestOffset at, uint64_t length, bool unmap);
  Result<void> zero_subclusters(GuestOffset at, uint64_t length, bool unmap);
  Result<void> discard_part(GuestOffset at, GuestOffset end);
  Result<void> write_zeros(GuestOffset at, uint64_t length);
  Result<void> write_where_not_zero(GuestOffset at, GuestOffset end);
  Result<void> write_range(GuestOffset at, std::span<const std::byte> from);

  // disk_shorten.cc
  Result<void> shorten();
  Result<HostCluster> shortened_end(HostCluster end);
  template <typename Look>
  Result<void> each_owned_slice(Look look);
  Result<void> move_mapped(HostCluster target);
  Result<void> move_slice(ClusterIndex first, HostCluster target, uint64_t& moved);
  Result<void> copy_cluster(HostOffset from, HostOffset to);
  Result<void> move_l1_table(HostCluster target);

  // disk_commit.cc
  Result<void> prepare_header();
  Result<void> write_features(bool dirty);
  // `all`: the refcounts, too, if they are lazy.
  Result<void> commit(bool all);
  Result<void> write_changes(const ClusterMap::Changes& map, const std::vector<uint64_t>& l1,
                             const Refcounts::Changes& refcounts, bool& tables_durable);
  Result<void> flush_files();
  Result<void> reclaim();
  Result<bool> nothing_lies_behind(HostCluster end) const;

  std::shared_ptr<Image> image_;
  const Geometry geometry_;
  const Options options_;
  const bool lazy_;  // refcounts are written at the end, and the image is dirty until then
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<Storage> data_;  // the external data file, or storage_
  std::shared_ptr<ClusterMap> map_;
  HostOffset l1_table_;  // where it is
  std::unique_ptr<Refcounts> refcounts_;
  std::unique_ptr<Disk> disk_;

  GuestLocks guest_locks_;
  mutable Epochs epochs_;
  MetadataGuard metadata_;  // guarded by the map's lock
  // Guest data were to be written on top of a table: nothing is written any more.
  std::atomic<bool> corrupt_{false};
  Frees unlinked_;  // guarded by the map's lock: let go by changes that are not committed
  std::atomic<bool> header_ready_{
      false};  // the header says that somebody writes who knows no bitmaps

  SharedFlush shared_flush_;

  // One commit at a time; guards what follows.
  std::mutex commit_mutex_;
  struct Waiting {
    uint64_t epoch;
    Frees frees;
  };
  std::deque<Waiting> waiting_;  // committed, but somebody may still read them

  mutable std::atomic<uint64_t> allocated_{0};
  mutable std::atomic<uint64_t> zeroed_{0};
  mutable std::atomic<uint64_t> freed_;
  mutable std::atomic<uint64_t> cut_off_{0};
};

}  // namespace qcow2
