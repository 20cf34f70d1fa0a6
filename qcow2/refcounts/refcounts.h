// The refcounts of an image that is being written, and thereby its free clusters.
//
// Source: qcow2 specification, "Host cluster management".  The refcount table points to refcount
// blocks; each counts the references to the clusters of one range of the file.  Memory holds the
// current counts; the file is behind until the next commit.  A count in the file is never lower
// than the references in the file: too high is a leak, too low causes data loss.
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

namespace vc::qcow2 {

class Refcounts {
 public:
  struct Run {
    HostCluster first;
    uint64_t count;
    // Past all previous ends of the file: reads as zeros.
    bool fresh;
  };

  // The data to write, with a flush after each step: the blocks, the table's entries (or a whole
  // moved table), the header's pointer to it.
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

  // Allocates up to `wanted` (at least 1) consecutive free clusters; sets their refcounts to 1.
  Result<Run> allocate(uint64_t wanted);

  // Allocates exactly `wanted` (at least 1) consecutive free clusters, for a table.
  Result<Run> allocate_table(uint64_t wanted);

  // Removes one reference from each cluster; appends the runs that become free to `freed`.  They
  // may be reallocated at once, so the file and all threads must not refer to them any more.
  Result<void> release(HostCluster first, uint64_t count, std::vector<Run>& freed);

  Result<uint64_t> get(HostCluster cluster);

  // Sets a count, whatever it was.  An error if it cannot be stored: the cluster is past all
  // blocks, or the count exceeds the width.
  Result<void> assign(HostCluster cluster, uint64_t count);
  // Returns the end of the blocks: none of them counts this cluster or a later one.
  uint64_t end_of_blocks();

  // Like allocate(), for the lowest free clusters before `limit`; `count` is 0 if there are none.
  Result<Run> allocate_below(HostCluster limit, uint64_t wanted);

  // Returns the number of used clusters before `end`.
  Result<uint64_t> count_used(HostCluster end);

  // Returns the clusters of the table and its blocks.
  std::vector<Run> own_clusters();
  // Move the table and the blocks from `limit` and later clusters to free clusters before it, as
  // far as there are any, in the next commit.  Blocks that count only themselves are dropped.
  // Appends the old places of blocks to `old`: after that commit, remove one reference from each.
  Result<void> move_table_below(HostCluster limit);
  Result<void> move_blocks_below(HostCluster limit, std::vector<Run>& old);

  // Returns the end of use: all clusters from there on are free, and the file may be truncated
  // there.
  Result<HostCluster> end_of_use();
  // Records that the file was truncated at `end`.
  void truncate(HostCluster end);

  // Returns whether a caller that delays commits should commit now: blocks were added, which a
  // recount needs to find, or there are many changes.
  bool changes_are_due();

  // One commit at a time: take_changes(), then committed(), or commit_failed() and take_changes()
  // again.
  Changes take_changes();
  void committed();
  void commit_failed(const Changes& changes);

 private:
  struct Block {
    HostOffset at;
    std::vector<std::byte> bytes;
    // The bytes that differ from the file: [dirty_begin, dirty_end); empty if none do.
    uint64_t dirty_begin = UINT64_MAX;
    uint64_t dirty_end = 0;
    // A commit is writing the block: do not read it from the file.
    bool committing = false;
    bool dirty() const { return dirty_begin < dirty_end; }
  };

  Refcounts(std::shared_ptr<Storage> storage, const Header& header);

  // The caller must hold mutex_ for all of these.
  uint64_t block_index(uint64_t cluster) const { return cluster >> block_bits_; }
  Result<Block*> find_block(uint64_t index);     // nullptr if there is none: all counts are 0
  Result<Block*> require_block(uint64_t index);  // creates it if it does not exist
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
  // mutex_ guards all members below.
  std::vector<uint64_t> table_;  // offsets of blocks; 0: none
  HostOffset table_offset_;
  bool table_moved_ = false;
  std::vector<Run> old_tables_;
  std::set<uint64_t> changed_entries_;  // of table_
  std::map<uint64_t, Block> blocks_;    // the blocks in memory, by index
  // The end of the file so far: no later cluster was ever part of it.
  uint64_t end_ = 0;
  // No cluster before hint_ is free; no run of several free clusters was found before run_hint_.
  uint64_t hint_ = 0;
  uint64_t run_hint_ = 0;
};

}  // namespace vc::qcow2
