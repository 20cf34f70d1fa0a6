// Walks the B-trees of a btrfs.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "guest/filesystem/btrfs_chunks.h"
#include "guest/reading/byte_view.h"

namespace vc::guest {

// Checksum algorithms: a field of the superblock.
enum class BtrfsChecksum : uint16_t { kCrc32c = 0, kXxhash64 = 1 };

// Returns true if the checksum at the start of a block is right. It covers the block from byte 32
// on.
bool has_btrfs_checksum(BtrfsChecksum kind, const Fields& block);

struct BtrfsKey {
  uint64_t object = 0;
  uint8_t type = 0;
  uint64_t offset = 0;
  auto operator<=>(const BtrfsKey&) const = default;
};

struct BtrfsRoot {
  uint64_t logical = 0;
  uint8_t level = 0;
  uint64_t generation = 0;
  std::optional<BtrfsKey> first = {};  // first key, as the parent has it
};

class BtrfsTrees {
 public:
  struct Item {
    uint64_t object;
    uint8_t type;
    uint64_t offset;
    Fields data;
  };
  using Visit = std::function<Result<void>(const Item& item)>;

  // All arguments must outlive the object. `uuid`: the 16 bytes that each block carries. A limit
  // for all trees together: at most `most_nodes` nodes are read.
  BtrfsTrees(const ByteView& view, const BtrfsChunks& chunks, BtrfsChecksum checksum,
             uint64_t node_size, uint64_t most_nodes, std::string uuid)
      : view_(view),
        chunks_(chunks),
        checksum_(checksum),
        node_size_(node_size),
        most_nodes_(most_nodes),
        uuid_(std::move(uuid)) {}

  // Visits the items of a tree in the order of their keys.
  Result<void> walk(const BtrfsRoot& root, uint64_t owner, const Visit& visit);

 private:
  Result<void> descend(const BtrfsRoot& root, uint64_t owner, const Visit& visit);
  Result<Block> read_node(const BtrfsRoot& root, uint64_t owner);
  Result<void> visit_leaf(const Fields& node, const Visit& visit);

  const ByteView& view_;
  const BtrfsChunks& chunks_;
  const BtrfsChecksum checksum_;
  const uint64_t node_size_;  // bytes
  const uint64_t most_nodes_;
  const std::string uuid_;
  uint64_t nodes_ = 0;            // nodes read, of all trees
  std::optional<BtrfsKey> last_;  // key of the last leaf of this walk
};

}  // namespace vc::guest
