// The L1 table and the L2 tables behind it: which guest cluster is where.
//
// For a read-only disk this is a look-up in the table cache, for L1 and L2 tables alike: a chain of
// many images, or many snapshots, take no more memory than the cache.  For a disk that is written
// it holds all of its L1 table, and the changes that are not on disk yet:
//
//     changed  --take_changes-->  committing  --committed-->  table cache
//
// A look-up asks in that order, so that a change is seen from the moment it is made, wherever it is
// on its way.  Slices are changed in place only while they are in `changed`; what is being
// committed or cached is never written to.
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

namespace qcow2 {

class ClusterMap {
 public:
  using Slice = TableCache::Slice;

  // The L1 table must lie within the file; its length is within the limits already.
  static Result<std::shared_ptr<ClusterMap>> open(std::shared_ptr<Storage> storage,
                                                  std::shared_ptr<TableCache> cache,
                                                  const Geometry& geometry, HostOffset l1_table,
                                                  uint32_t l1_entries);

  // Reads the L1 table.  From now on the map may change, and readers need the lock.  Before other
  // threads come in.
  Result<void> make_writable();

  // Held while a mapping is looked up; costs nothing when the map cannot change.
  std::shared_lock<std::shared_mutex> lock_shared() const {
    return writable_ ? std::shared_lock(mutex_) : std::shared_lock<std::shared_mutex>();
  }
  // Held while it is changed.
  std::unique_lock<std::shared_mutex> lock_exclusive() { return std::unique_lock(mutex_); }

  // All below want the lock held: shared where const, else exclusive.

  uint64_t l1_size() const { return l1_size_; }
  // Of a writable map.  0 past the end of the table, which may be smaller than a snapshot's disk.
  uint64_t l1_entry(uint64_t index) const { return index < l1_.size() ? l1_[index] : 0; }

  // The first entry in [index, end) that points to an L2 table, `at` that table; index == end if
  // there is none.  For any map.
  struct L1Entry {
    uint64_t index;
    HostOffset at;
  };
  Result<L1Entry> next_table(uint64_t index, uint64_t end) const;

  uint64_t slice_size() const { return slice_size_; }
  uint64_t slice_entries() const { return slice_size_ / geometry_.l2_entry_size(); }

  // The slice at `slice` of the file, all of which must exist.
  Result<std::shared_ptr<const Slice>> slice_at(HostOffset slice) const;

  // The same, to write to until the lock is released.
  Result<Slice*> change_slice(HostOffset slice);

  // A table that the disk's L1 does not point to yet, `contents` all of it.  It gets into the file
  // before the L1 entry that points to it does.
  void add_table(uint64_t l1_index, HostOffset table, std::vector<std::byte> contents);

  // Bytes of changed slices.
  uint64_t changed_bytes() const { return changed_.size() * slice_size_; }

  // What must be written, in this order with a flush between: new tables; slices, then L1 entries.
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
  // One commit at a time.
  Changes take_changes();
  // They are in the file.
  void committed(const Changes& changes);
  // They may not be: they are changes again.  `tables_durable`: the new tables got to the disk
  // before that, so that an L1 entry that points to one may be there, too.
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
  // All guarded by mutex_; slices by their offset in the file.
  std::vector<uint64_t> l1_;  // of a writable map: entries as in the file, in host byte order
  Slices changed_;
  Slices committing_;
  std::unordered_set<uint64_t> changed_l1_;  // indices
  // Slices of tables that no L1 entry in the file points to.  Invariant: each is in changed_.
  std::unordered_set<uint64_t> unreferenced_;
};

}  // namespace qcow2
