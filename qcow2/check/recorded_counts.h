// The refcounts in the refcount blocks of an image, correct or not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class RecordedCounts {
 public:
  static constexpr uint64_t kReservedMask = 0x1ff;

  // Reads the refcount table, and from each block the clusters with a refcount of 1. `storage` must
  // outlive the object. An unreadable block counts as zeros, and is listed in unreadable().
  static Result<RecordedCounts> load(const Storage& storage, const Header& header,
                                     uint64_t file_size, unsigned threads);

  // Returns whether the header's fields lead to a table.
  bool usable() const { return usable_; }
  // Returns the table's entries as in the file; empty if the table is not usable.
  const std::vector<uint64_t>& table() const { return table_; }
  // Returns the number of clusters that one block counts.
  uint64_t per_block() const { return per_block_; }
  unsigned order() const { return order_; }
  const std::vector<HostOffset>& unreadable() const { return unreadable_; }

  // Returns the offset of an entry's block; 0 if there is none, nullopt if it is unaligned.
  std::optional<HostOffset> block_of(uint64_t index) const;
  // Returns the first entry from `from` on that has a block, valid or not; the size of the table if
  // there is none.
  uint64_t next_block(uint64_t from) const;

  // Returns true if the cluster's refcount is 1. nullopt if unknown. Thread-safe.
  std::optional<bool> is_one(HostCluster cluster) const;
  // Reads the refcount of a cluster from its block.
  Result<std::optional<uint64_t>> get(HostCluster cluster) const;

  // Reads the block of an entry into `block`, which has the size of a cluster.  Returns false, and
  // leaves `block` unchanged, if the block contains only zeros.
  Result<bool> read_block(uint64_t index, std::span<std::byte> block) const;

 private:
  RecordedCounts() = default;
  void load_ones(unsigned threads);

  // A bit for each cluster with a refcount of 1. Empty: there are none.
  struct Ones {
    uint64_t block = 0;  // offset
    std::vector<uint64_t> bits;
    bool failed = false;
  };

  const Storage* storage_ = nullptr;
  uint64_t file_size_ = 0;
  uint64_t cluster_size_ = 0;
  unsigned order_ = 4;
  uint64_t per_block_ = 0;
  bool usable_ = false;
  std::vector<uint64_t> table_;
  std::vector<Ones> ones_;            // of all blocks, sorted by offset
  std::vector<uint32_t> ones_index_;  // index into ones_ for each table entry
  std::vector<HostOffset> unreadable_;
};

}  // namespace vc::qcow2
