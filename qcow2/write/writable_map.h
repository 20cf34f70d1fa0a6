// The mapping of a disk that is being written: L2 entries, the tables that they are in, and the
// clusters that changes release.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/cluster_run.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/cluster_map.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/refcounts.h"
#include "qcow2/write/overlap_check.h"
#include "storage/offset.h"

namespace vc::qcow2 {

// Returns the mask of subclusters [first, end) of a cluster.
constexpr uint64_t subcluster_mask(unsigned first, unsigned end) {
  return (uint64_t{1} << end) - (uint64_t{1} << first);
}

// Changes a ClusterMap, whose lock protects the members of this class, too.
class WritableMap {
 public:
  // Clusters that lose a reference once the change is committed.
  using Frees = std::vector<ClusterRun>;

  // Collects the tables of the image.  Returns an error if one of them has no refcount, since the
  // next allocation would overwrite it, or if two overlap.  `refcounts` must outlive the object.
  static Result<std::unique_ptr<WritableMap>> open(std::shared_ptr<const Image> image,
                                                   std::shared_ptr<ClusterMap> map,
                                                   Refcounts& refcounts, bool has_data_file);

  // Adds the tables of bitmaps to those that guest data must not overwrite.  Returns false, and
  // adds none, if one of them has no refcount or overlaps another table.
  Result<bool> add_bitmaps(const BitmapDirectory& directory);
  // Removes the directory and the tables of enabled bitmaps again.
  void erase_bitmaps(const BitmapDirectory& directory);

  // Returns the first cluster after those whose entries are in the slice of `cluster`.
  ClusterIndex end_of_slice(ClusterIndex cluster) const;

  // Return whether a write to this subcluster needs no new mapping, and whether only this disk
  // refers to the cluster's host cluster, so that a new mapping may keep it.
  bool in_place(L2Entry entry, unsigned subcluster) const;
  bool owns_host(L2Entry entry) const;
  // Returns whether the cluster has data of its own.
  bool has_data(L2Entry entry) const;

  // The caller must hold a lock of the map for all functions below, an exclusive one for those that
  // are not const.

  // Returns whether the L1 entry of `cluster` points to a table.
  bool has_table(ClusterIndex cluster) const { return slot_of(cluster).exists; }
  // Returns the entries of clusters whose entries are in one slice.
  Result<std::vector<L2Entry>> entries(ClusterIndex first, ClusterIndex end) const;
  // Returns the number of bytes from `at`, up to `limit`, that can be written in place, and their
  // offset in `host`; 0 if none.
  Result<uint64_t> find_in_place(GuestOffset at, uint64_t limit, HostOffset& host) const;
  // Returns the table that guest data at `host` would overwrite; nullopt if there is none.
  std::optional<OverlapCheck::Hit> table_at(HostOffset host, uint64_t length) const;

  // Ensures that the L2 table of `cluster` exists and is not shared.
  Result<void> ensure_table(ClusterIndex cluster);
  // Copies the table of an L1 entry (or an empty one, if there is none) to `to`, which is allocated
  // for it.
  Result<void> place_table(uint64_t l1_index, HostCluster to);
  // The table must exist, and must not be shared.
  Result<void> set_entry(ClusterIndex cluster, L2Entry entry);

  // Removes a reference from the entry's clusters, except those of tables, or from `count`
  // clusters from `first`.
  void unlink(L2Entry entry);
  void unlink(HostCluster first, uint64_t count) { unlinked_.push_back({first, count}); }
  // Takes the clusters that were unlinked since the last call; and gives them back.
  Frees take_unlinked() { return std::exchange(unlinked_, {}); }
  void put_back(const Frees& frees) {
    unlinked_.insert(unlinked_.end(), frees.begin(), frees.end());
  }
  // The same for a cluster, unless it contains a table.
  void unlink_data(HostCluster cluster) {
    if (!tables_.find(cluster, 1)) unlink(cluster, 1);
  }
  // Records that clusters contain no table any more.
  void erase_table(HostCluster first, uint64_t count) { tables_.erase(first, count); }

  // Returns the number of clusters that ensure_table () has allocated.
  uint64_t allocated() const { return allocated_; }

 private:
  // The location of a cluster's entry.
  struct Slot {
    HostOffset slice;  // offset in the file; undefined if there is no table
    uint64_t index;    // of the entry in the slice
    bool exists;       // the L1 entry points to a table
    bool owned;        // and no other L1 entry points to it
  };

  WritableMap(std::shared_ptr<const Image> image, std::shared_ptr<ClusterMap> map,
              Refcounts& refcounts, bool has_data_file)
      : image_(std::move(image)),
        geometry_(image_->geometry()),
        has_data_file_(has_data_file),
        map_(std::move(map)),
        refcounts_(refcounts) {}

  template <typename Visit>
  Result<void> for_each_table(const Visit& visit) const;
  Result<void> check_counted(Structure structure, HostOffset at, uint64_t length);
  Slot slot_of(ClusterIndex cluster) const;
  bool extended() const { return geometry_.extended_l2(); }

  const std::shared_ptr<const Image> image_;
  const Geometry geometry_;
  const bool has_data_file_;
  const std::shared_ptr<ClusterMap> map_;
  Refcounts& refcounts_;
  OverlapCheck tables_;  // guarded by the map's lock
  Frees unlinked_;       // guarded by the map's lock
  std::atomic<uint64_t> allocated_{0};
};

}  // namespace vc::qcow2
