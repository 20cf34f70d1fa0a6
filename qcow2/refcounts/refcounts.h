// The refcounts of an image that is written, and with them: which cluster of the file is free.
//
// QCOW2 text, "Host cluster management".  The refcount table points to refcount blocks, each of
// which counts the references to the clusters of one range of the file.  All counts are kept in
// memory as they should be; what is in the file lags behind until the next commit, and is never
// lower than the number of references that are in the file (too high is a leak, too low a
// disaster).
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "base/result.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace qcow2 {

class Refcounts {
 public:
  struct Run {
    HostCluster first;
    uint64_t count;
    // Behind all that the file ever had: reads as zeros.
    bool fresh;
  };

  // What must be written, with a flush after each step: the blocks, the table's entries (or all of
  // a table that has moved), the header's pointer to it.
  struct Changes {
    struct Write {
      HostOffset at;
      std::vector<std::byte> bytes;
    };
    std::vector<Write> blocks;
    std::vector<Write> table;
    bool table_moved = false;
    HostOffset table_offset;
    uint32_t table_clusters = 0;
    std::vector<Run> old_tables;  // free once the header points elsewhere
    std::vector<uint64_t> block_indices;
    std::vector<uint64_t> table_indices;
    bool empty() const { return blocks.empty() && table.empty() && !table_moved; }
  };

  static Result<std::unique_ptr<Refcounts>> load(std::shared_ptr<Storage> storage,
                                                 const Header& header);

  // Up to `wanted` (at least 1) free clusters in a row, whose refcounts are 1 from now on.
  Result<Run> allocate(uint64_t wanted);

  // `wanted` (at least 1) free clusters in a row, for a table: no fewer.
  Result<Run> allocate_table(uint64_t wanted);

  // One reference less for each; appends the runs that are free by this to `freed`.  They may be
  // allocated at once, so nothing may refer to them, neither in the file nor in any thread.
  Result<void> release(HostCluster first, uint64_t count, std::vector<Run>& freed);

  Result<uint64_t> get(HostCluster cluster);

  // Sets a count, whatever it was.  An error if that count has no place: the cluster is behind all
  // blocks, or there are more references than the width of the counts can hold.
  Result<void> assign(HostCluster cluster, uint64_t count);
  // No block counts this cluster or one behind it.
  uint64_t end_of_blocks();

  // The same for free clusters before `limit`, the lowest; `count` is 0 when there is none.
  Result<Run> allocate_below(HostCluster limit, uint64_t wanted);

  // How many clusters before `end` are not free.
  Result<uint64_t> count_used(HostCluster end);

  // Where the table and its blocks are.
  std::vector<Run> own_clusters();
  // Moves them away from `limit` and what is behind it, as far as there is room before it, with the
  // next commit.  Blocks that count nothing but themselves go.  `old` gets where blocks were: once
  // that commit is done, they lose a reference.
  Result<void> move_table_below(HostCluster limit);
  Result<void> move_blocks_below(HostCluster limit, std::vector<Run>& old);

  // Clusters from here on are free: the file may be cut there.
  Result<HostCluster> end_of_use();
  // The file was cut at `end`.
  void cut(HostCluster end);

  // Whether somebody who puts changes off as long as it can should not any more: blocks were added,
  // which those who count anew need to find, or there are many changes.
  bool changes_are_due();

  // One commit at a time: taken, and then committed, or failed and to be taken again.
  Changes take_changes();
  void committed();
  void commit_failed(const Changes& changes);

 private:
  struct Block {
    HostOffset at;
    std::vector<std::byte> bytes;
    // The bytes that differ from the file's: [dirty_begin, dirty_end), none if that is empty.
    uint64_t dirty_begin = UINT64_MAX;
    uint64_t dirty_end = 0;
    // A commit is writing it: what the file holds of it is not to be read.
    bool committing = false;
    bool dirty() const { return dirty_begin < dirty_end; }
  };

  Refcounts(std::shared_ptr<Storage> storage, const Header& header);

  // All with mutex_ held.
  uint64_t block_index(uint64_t cluster) const { return cluster >> block_bits_; }
  Result<Block*> find_block(uint64_t index);     // nullptr: there is none, all counts are 0
  Result<Block*> require_block(uint64_t index);  // makes it
  Result<Block*> load_block(uint64_t index);
  Result<void> grow_table(uint64_t index);
  Result<uint64_t> count_of(uint64_t cluster);
  void set_count(Block& block, uint64_t cluster, uint64_t count);
  Result<bool> find_hole(uint64_t wanted, uint64_t& hint, uint64_t scan_limit, Run& run);
  Result<Run> append(uint64_t wanted);
  Result<Run> append_table(uint64_t wanted);
  Result<Run> take_below(uint64_t limit, uint64_t wanted);
  Result<void> release_run(Run run);
  bool counts_only_itself(const Block& block, uint64_t index) const;
  void forget_clean_blocks();

  const std::shared_ptr<Storage> storage_;
  const Geometry geometry_;
  const unsigned order_;       // a refcount has 1 << order_ bits
  const unsigned block_bits_;  // a block counts 1 << block_bits_ clusters

  std::mutex mutex_;
  // All guarded by mutex_.
  std::vector<uint64_t> table_;  // offsets of blocks, 0: none
  HostOffset table_offset_;
  bool table_moved_ = false;
  std::vector<Run> old_tables_;
  std::set<uint64_t> changed_entries_;  // of table_
  std::map<uint64_t, Block> blocks_;    // those in memory, by index
  // No cluster at or behind it was ever part of the file.
  uint64_t end_ = 0;
  // No cluster before it is free; no run of several was found before the other.
  uint64_t hint_ = 0;
  uint64_t run_hint_ = 0;
};

}  // namespace qcow2
