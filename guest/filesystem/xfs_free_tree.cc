#include "guest/filesystem/xfs_free_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "guest/reading/checksums.h"
#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr size_t kTreeChecksum = 0x34;
constexpr uint64_t kMostNeighbours = 64;
constexpr uint64_t kSector = 512;

class Walk {
 public:
  Walk(const ByteView& view, const XfsSuperblock& super, uint64_t group, XfsFreeTree::Order order,
       uint64_t most)
      : view_(view),
        super_(super),
        group_(group),
        is_by_length_(order == XfsFreeTree::Order::kByLength),
        begin_(group * super.group_blocks),
        length_(super.group_length(group)),
        most_(most) {}

  Result<XfsFreeTree> run(uint64_t root, uint32_t levels);

 private:
  // A block of the tree, and its first key according to its parent. The root has no key.
  struct Node {
    uint64_t block;
    std::optional<uint64_t> first;
  };

  Failure damaged() const {
    return doubt(fmt::format("the free space tree of allocation group {} is damaged", group_));
  }
  size_t header() const { return super_.is_v5 ? 56 : 16; }
  const char* magic() const {
    if (is_by_length_) return super_.is_v5 ? "AB3C" : "ABTC";
    return super_.is_v5 ? "AB3B" : "ABTB";
  }
  // Returns the ascending key of record or key `n`: a block number, or a length and a block number.
  uint64_t key(const Fields& it, size_t n) const {
    const uint64_t block = it.be32(header() + 8 * n);
    return is_by_length_ ? uint64_t{it.be32(header() + 8 * n + 4)} << 32 | block : block;
  }
  Result<std::vector<Node>> read_level(const std::vector<Node>& nodes, uint32_t level);
  Result<void> add_children(const Fields& it, std::vector<Node>& children) const;
  Result<void> check_block(const Fields& it, const Node& node, uint32_t level) const;
  Result<void> add_records(const Fields& it);

  const ByteView& view_;
  const XfsSuperblock& super_;
  const uint64_t group_;
  const bool is_by_length_;
  const uint64_t begin_;          // blocks
  const uint64_t length_;         // blocks
  const uint64_t most_;           // most blocks of the tree
  uint64_t seen_ = 0;             // blocks seen so far
  std::optional<uint64_t> last_;  // key of the last record
  uint64_t end_ = 0;              // end of the last record, within the group
  Ranges::Builder ranges_;
  Ranges::Builder blocks_;
  XfsFreeTree tree_;
};

Result<XfsFreeTree> Walk::run(uint64_t root, uint32_t levels) {
  std::vector<Node> nodes{{root, std::nullopt}};
  for (uint32_t level = levels; level-- > 0;) {
    ASSIGN_OR_RETURN(nodes, read_level(nodes, level));
  }
  tree_.ranges = ranges_.take();
  tree_.blocks = blocks_.take();
  if (tree_.ranges.total() != tree_.free) return damaged();
  return std::move(tree_);
}

// Returns the nodes of the next level. Empty after the last level.
Result<std::vector<Walk::Node>> Walk::read_level(const std::vector<Node>& nodes, uint32_t level) {
  std::vector<Node> next;
  const uint64_t size = super_.block_size;
  for (size_t i = 0; i < nodes.size();) {
    const uint64_t block = nodes[i].block;
    size_t neighbours = 1;
    while (i + neighbours < nodes.size() && neighbours < kMostNeighbours &&
           nodes[i + neighbours].block == block + neighbours)
      ++neighbours;
    seen_ += neighbours;
    if (block == 0 || block + neighbours > length_ || seen_ > most_) return damaged();
    blocks_.add(begin_ + block, begin_ + block + neighbours);
    ASSIGN_OR_RETURN(const Block bytes, view_.block((begin_ + block) * size, neighbours * size));
    for (size_t k = 0; k < neighbours; ++k) {
      const Fields it = bytes.fields().part(k * size, size);
      RETURN_IF_ERROR(check_block(it, nodes[i + k], level));
      if (level == 0)
        RETURN_IF_ERROR(add_records(it));
      else
        RETURN_IF_ERROR(add_children(it, next));
    }
    i += neighbours;
  }
  return next;
}

// Keys ascend over a whole level, and a block's first key equals the key in its parent. So no block
// is visited twice.
Result<void> Walk::add_children(const Fields& it, std::vector<Node>& children) const {
  const size_t pointers = header() + (super_.block_size - header()) / 12 * 8;
  for (size_t n = 0; n < it.be16(6); ++n) {
    if (!children.empty() && key(it, n) <= *children.back().first) return damaged();
    children.push_back({it.be32(pointers + 4 * n), key(it, n)});
  }
  return {};
}

Result<void> Walk::check_block(const Fields& it, const Node& node, uint32_t level) const {
  if (!it.has(0, magic()) || it.be16(4) != level) return damaged();
  const size_t most = (it.size() - header()) / (level == 0 ? 8 : 12);
  if (it.be16(6) > most || (it.be16(6) == 0 && (level > 0 || node.first))) return damaged();
  if (node.first && key(it, 0) != *node.first) return damaged();
  if (!super_.is_v5) return {};
  if (!is_right_checksum(it.le32(kTreeChecksum), crc32c_without(it.bytes(), kTreeChecksum)) ||
      it.be32(0x30) != group_ ||
      it.be64(0x10) != (begin_ + node.block) * super_.block_size / kSector)
    return damaged();
  return {};
}

Result<void> Walk::add_records(const Fields& it) {
  for (size_t n = 0; n < it.be16(6); ++n) {
    const uint64_t start = it.be32(header() + 8 * n);
    const uint64_t count = it.be32(header() + 8 * n + 4);
    if (count == 0 || start + count > length_ || (last_ && key(it, n) <= *last_) ||
        (!is_by_length_ && start < end_))
      return damaged();
    last_ = key(it, n);
    end_ = start + count;
    tree_.free += count;
    tree_.longest = std::max(tree_.longest, count);
    ranges_.add(begin_ + start, begin_ + start + count);
  }
  return {};
}

}  // namespace

Result<XfsFreeTree> XfsFreeTree::read(const ByteView& view, const XfsSuperblock& super,
                                      uint64_t group, Order order, uint64_t root, uint32_t levels,
                                      uint64_t most) {
  return Walk(view, super, group, order, most).run(root, levels);
}

}  // namespace vc::guest
