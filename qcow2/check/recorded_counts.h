// What the refcount blocks of an image say, good or bad.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace qcow2 {

class RecordedCounts {
 public:
  static constexpr uint64_t kReservedMask = 0x1ff;

  // Reads the refcount table, and from the blocks which clusters have a count of one.  `storage`
  // must outlive it.  A block that the storage does not give counts as zeros, and in unreadable ().
  static Result<RecordedCounts> load(const Storage& storage, const Header& header,
                                     uint64_t file_size, unsigned threads);

  // Whether the header's fields lead to a table at all.
  bool usable() const { return usable_; }
  // The table's entries as they stand in the file.  Empty when it is not usable.
  const std::vector<uint64_t>& table() const { return table_; }
  // Clusters that one block counts.
  uint64_t per_block() const { return per_block_; }
  unsigned order() const { return order_; }
  const std::vector<HostOffset>& unreadable() const { return unreadable_; }

  // Where the block of an entry lies; 0: none.  Nothing: not at the start of a cluster.
  std::optional<HostOffset> block_of(uint64_t index) const;
  // The first entry at or behind `from` that has a block, as good or bad as it may be; the size of
  // the table: none.
  uint64_t next_block(uint64_t from) const;

  // Whether a cluster's count is one; nothing: it cannot be known.  Thread-safe.
  std::optional<bool> is_one(HostCluster cluster) const;
  // The count of a cluster: reads its block.
  Result<std::optional<uint64_t>> get(HostCluster cluster) const;

  // Fills `block`, of the size of a cluster, with the block of an entry.  False: all of it is zeros
  // and nothing was written to `block`.
  Result<bool> read_block(uint64_t index, std::span<std::byte> block) const;

 private:
  RecordedCounts() = default;
  void load_ones(unsigned threads);

  // A bit for each cluster whose count is one.  Empty: there is none.
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
  std::vector<Ones> ones_;            // of every block there is, by its offset
  std::vector<uint32_t> ones_index_;  // of an entry of the table in ones_
  std::vector<HostOffset> unreadable_;
};

}  // namespace qcow2
