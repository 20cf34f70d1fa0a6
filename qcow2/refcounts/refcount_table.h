// The refcount table of an image, and its blocks in memory.
//
// Source: qcow2 specification, "Host cluster management". The refcount table points to refcount
// blocks. Each block has the refcounts of the clusters of one range of the file. Memory holds the
// current refcounts. The file is behind until the next commit.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/result.h"
#include "qcow2/format/cluster_run.h"
#include "qcow2/format/geometry.h"
#include "qcow2/format/header.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// The data of a commit to write, with a flush after each step: the blocks, the table's entries (or
// a whole moved table), the header's pointer to it.
struct RefcountChanges {
  struct Write {
    HostOffset at;
    std::vector<std::byte> bytes;
  };
  std::vector<Write> blocks;
  std::vector<Write> table;
  bool table_moved = false;
  HostOffset table_offset;
  uint32_t table_clusters = 0;
  std::vector<ClusterRun> old_tables;  // free once the header points elsewhere
  std::vector<uint64_t> block_indices;
  std::vector<uint64_t> table_indices;
  bool empty() const { return blocks.empty() && table.empty() && !table_moved; }
};

// Not thread-safe.
class RefcountTable {
 public:
  class Block {
   public:
    uint64_t get(uint64_t index) const;  // of the cluster with this index in the block's range

   private:
    friend class RefcountTable;
    bool dirty() const { return dirty_begin_ < dirty_end_; }
    // Must be called after changes of bytes_.
    void mark(uint64_t begin, uint64_t end);

    HostOffset at_;
    std::vector<std::byte> bytes_;
    unsigned order_ = 4;
    // The bytes that differ from the file: [dirty_begin_, dirty_end_); empty if none do.
    uint64_t dirty_begin_ = UINT64_MAX;
    uint64_t dirty_end_ = 0;
    // A commit is writing the block: do not read it from the file.
    bool committing_ = false;
  };

  // Reads the table.  Blocks must be clusters of the file.
  static Result<RefcountTable> load(std::shared_ptr<Storage> storage, const Header& header);

  // Returns the number of clusters that one block counts.
  uint64_t range() const { return uint64_t{1} << block_bits_; }
  uint64_t block_index(uint64_t cluster) const { return cluster >> block_bits_; }
  uint64_t index_in_block(uint64_t cluster) const { return cluster & (range() - 1); }
  unsigned order() const { return order_; }  // a refcount has 1 << order () bits
  // Returns the number of entries, and whether an entry points to a block.
  uint64_t size() const { return entries_.size(); }
  bool has_block(uint64_t index) const { return index < entries_.size() && entries_[index] != 0; }

  // Blocks stay valid until the next call that needs another one.
  Result<Block*> find_block(uint64_t index);     // nullptr if there is none: all counts are 0
  Result<Block*> require_block(uint64_t index);  // creates it if it does not exist
  // Creates the block of an entry in `cluster`, without any count.
  Block& add_block(uint64_t index, uint64_t cluster);
  // Enlarges the table so that it has an entry `index`.
  Result<void> grow(uint64_t index);

  Result<uint64_t> count_of(uint64_t cluster);
  void set_count(Block& block, uint64_t cluster, uint64_t count);

  // The end of the file so far, in clusters: no later cluster was ever part of it.
  uint64_t end() const { return end_; }
  void extend(uint64_t end) { end_ = std::max(end_, end); }
  void truncate(uint64_t end) { end_ = std::min(end_, end); }

  // Returns the clusters of the table itself, and of a block.
  ClusterRun clusters() const;
  HostCluster block_cluster(uint64_t index) const;
  // Returns whether the block has no refcount except that of its own cluster, if it counts that.
  Result<bool> counts_only_itself(uint64_t index);
  void drop_block(uint64_t index);
  // Move the table and a block to allocated clusters, in the next commit.
  void move(HostCluster to);
  Result<void> move_block(uint64_t index, HostCluster to);

  // See Refcounts.
  bool changes_are_due() const;
  RefcountChanges take_changes();
  void committed();
  void commit_failed(const RefcountChanges& changes);

 private:
  RefcountTable(std::shared_ptr<Storage> storage, const Header& header);

  Result<Block*> load_block(uint64_t index);
  void forget_clean_blocks();

  std::shared_ptr<Storage> storage_;
  Geometry geometry_;
  unsigned order_;
  unsigned block_bits_;            // a block counts 1 << block_bits_ clusters
  std::vector<uint64_t> entries_;  // offsets of blocks; 0: none
  HostOffset offset_;              // of the table
  bool moved_ = false;
  std::vector<ClusterRun> old_tables_;
  std::set<uint64_t> changed_entries_;
  std::map<uint64_t, Block> blocks_;  // the blocks in memory, by index
  uint64_t end_ = 0;
};

}  // namespace vc::qcow2
