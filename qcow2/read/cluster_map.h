// The L1 table and its L2 tables: the mapping from guest clusters to host clusters.
//
// For a read-only disk all look-ups use the table cache, for L1 and L2 tables alike: a long chain
// or many snapshots need no more memory than the cache.  For a writable disk the map holds the
// whole L1 table, and the changes that are not on disk yet:
//
//     changed  --take_changes-->  committing  --committed-->  table cache
//
// A look-up searches in that order, so that a change is visible immediately and throughout the
// commit.  Slices are modified only in `changed`; slices in `committing` or in the cache are
// immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/read/table_cache.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class ClusterMap {
 public:
  using Slice = TableCache::Slice;

  // Opens the map.  The L1 table must be within the file, and its length within the limits.
  static Result<std::shared_ptr<ClusterMap>> open(std::shared_ptr<Storage> storage,
                                                  std::shared_ptr<TableCache> cache,
                                                  const Geometry& geometry, HostOffset l1_table,
                                                  uint32_t l1_entries);

  // Reads the L1 table.  After this the map may change, and readers need the lock.  Must be called
  // before other threads use the map.
  Result<void> make_writable();

  // Locks the map for a look-up.  Does nothing if the map is read-only.
  std::shared_lock<std::shared_mutex> lock_shared() const {
    return writable_ ? std::shared_lock(mutex_) : std::shared_lock<std::shared_mutex>();
  }
  // Locks the map for a change.
  std::unique_lock<std::shared_mutex> lock_exclusive() { return std::unique_lock(mutex_); }

  // For all functions below the caller must hold the lock: shared for const ones, else exclusive.

  uint64_t l1_size() const { return l1_size_; }
  // Returns an L1 entry of a writable map; 0 past the end of the table, which may be smaller than
  // the disk of a snapshot.
  uint64_t l1_entry(uint64_t index) const { return index < l1_.size() ? l1_[index] : 0; }

  // The first entry in [index, end) that points to an L2 table, and that table's offset `at`; index
  // == end if there is none.  For any map.
  struct L1Entry {
    uint64_t index;
    HostOffset at;
  };
  Result<L1Entry> next_table(uint64_t index, uint64_t end) const;

  uint64_t slice_size() const { return slice_size_; }
  uint64_t slice_entries() const { return slice_size_ / geometry_.l2_entry_size(); }

  // Returns the slice at offset `slice` of the file, which must exist completely.
  Result<std::shared_ptr<const Slice>> slice_at(HostOffset slice) const;

  // Like slice_at(); the caller may modify the slice until it releases the lock.
  Result<Slice*> change_slice(HostOffset slice);

  // Adds a new L2 table with `contents`.  The table is written to the file before the L1 entry that
  // points to it.
  void add_table(uint64_t l1_index, HostOffset table, std::vector<std::byte> contents);

  // Returns the bytes of changed slices.
  uint64_t changed_bytes() const { return changed_.size() * slice_size_; }

  // The data to write, in this order with a flush between the two: new tables; slices, then L1
  // entries.
  struct Changes {
    struct Write {
      HostOffset at;
      std::shared_ptr<const Slice> bytes;
    };
    std::vector<Write> new_tables;
    std::vector<Write> slices;
    std::vector<uint64_t> l1_indices;
    bool empty() const { return new_tables.empty() && slices.empty() && l1_indices.empty(); }
  };
  // Takes the changes for a commit.  One commit at a time.
  Changes take_changes();
  // Marks the changes as written to the file.
  void committed(const Changes& changes);
  // Makes the changes pending again after a failed commit.  `tables_durable`: the new tables have
  // reached the disk, so that L1 entries that point to them may be in the file, too.
  void commit_failed(const Changes& changes, bool tables_durable);

 private:
  ClusterMap() = default;

  using Slices = std::unordered_map<uint64_t, std::shared_ptr<Slice>>;

  std::shared_ptr<Storage> storage_;
  std::shared_ptr<TableCache> cache_;
  Geometry geometry_;
  HostOffset l1_table_;
  uint64_t l1_size_ = 0;  // entries
  uint64_t slice_size_ = 0;
  bool writable_ = false;

  mutable std::shared_mutex mutex_;
  // mutex_ guards all members below.  Slices are stored by their offset in the file.
  std::vector<uint64_t> l1_;  // of a writable map: entries as in the file, in host byte order
  Slices changed_;
  Slices committing_;
  std::unordered_set<uint64_t> changed_l1_;  // indices
  // Slices of tables that no L1 entry in the file points to.  Invariant: all are in changed_.
  std::unordered_set<uint64_t> unreferenced_;
};

}  // namespace vc::qcow2
