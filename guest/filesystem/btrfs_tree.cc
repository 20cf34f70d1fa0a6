#include "guest/filesystem/btrfs_tree.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "guest/reading/checksums.h"
#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr size_t kChecksumSize = 32;
constexpr size_t kHeaderSize = 0x65;
constexpr size_t kItemSize = 25;
constexpr size_t kPointerSize = 33;
constexpr uint8_t kHighestLevel = 7;

Failure damaged(uint64_t logical) {
  return doubt(fmt::format("its tree block {:#x} is damaged", logical));
}

BtrfsKey key_of(const Fields& it) {
  return {it.le64(0), it.u8(8), it.le64(9)};
}

// Returns true if the keys of a node ascend, and its first key equals the one in its parent.
bool has_sound_keys(const BtrfsRoot& root, const Fields& node, size_t size) {
  const uint64_t count = node.le32(0x60);
  // Only the root of a tree may be empty.
  if (count == 0) return root.level == 0 && !root.first;
  std::optional<BtrfsKey> last;
  for (uint64_t i = 0; i < count; ++i) {
    const BtrfsKey key = key_of(node.part(kHeaderSize + size * i, size));
    if (last && key <= *last) return false;
    last = key;
  }
  return !root.first || *root.first == key_of(node.part(kHeaderSize, size));
}

}  // namespace

bool has_btrfs_checksum(BtrfsChecksum kind, const Fields& block) {
  if (block.size() <= kChecksumSize) return false;
  const auto covered = block.bytes().subspan(kChecksumSize);
  if (kind == BtrfsChecksum::kCrc32c) return is_right_checksum(block.le32(0), crc32c(covered));
  return is_right_checksum(block.le64(0), XXH64(covered.data(), covered.size(), 0));
}

Result<Block> BtrfsTrees::read_node(const BtrfsRoot& root, uint64_t owner) {
  if (++nodes_ > most_nodes_) return damaged(root.logical);
  ASSIGN_OR_RETURN(const auto places, chunks_.places(root.logical, node_size_));
  for (const uint64_t place : places) {
    ASSIGN_OR_RETURN(Block block, view_.block(place, node_size_));
    const Fields it = block.fields();
    if (has_btrfs_checksum(checksum_, it) && it.le64(0x30) == root.logical &&
        it.text(0x20, 16) == uuid_ && it.le64(0x58) == owner && it.u8(0x64) == root.level &&
        it.le64(0x50) == root.generation)
      return block;
  }
  return damaged(root.logical);
}

Result<void> BtrfsTrees::visit_leaf(const Fields& node, const Visit& visit) {
  const uint64_t count = node.le32(0x60);
  if (count > (node_size_ - kHeaderSize) / kItemSize) return damaged(node.le64(0x30));
  if (count == 0) return {};
  // Every path ends at a leaf. So if the keys of the leaves ascend, no block is visited twice.
  if (last_ && key_of(node.part(kHeaderSize)) <= *last_) return damaged(node.le64(0x30));
  last_ = key_of(node.part(kHeaderSize + kItemSize * (count - 1)));
  for (uint64_t i = 0; i < count; ++i) {
    const Fields key = node.part(kHeaderSize + kItemSize * i, kItemSize);
    const uint64_t at = key.le32(17);
    const uint64_t size = key.le32(21);
    if (at + size > node_size_ - kHeaderSize) return damaged(node.le64(0x30));
    RETURN_IF_ERROR(
        visit({key.le64(0), key.u8(8), key.le64(9), node.part(kHeaderSize + at, size)}));
  }
  return {};
}

Result<void> BtrfsTrees::walk(const BtrfsRoot& root, uint64_t owner, const Visit& visit) {
  last_.reset();
  return descend(root, owner, visit);
}

Result<void> BtrfsTrees::descend(const BtrfsRoot& root, uint64_t owner, const Visit& visit) {
  if (root.level > kHighestLevel) return damaged(root.logical);
  ASSIGN_OR_RETURN(const Block block, read_node(root, owner));
  const Fields node = block.fields();
  const size_t size = root.level == 0 ? kItemSize : kPointerSize;
  const uint64_t count = node.le32(0x60);
  if (count > (node_size_ - kHeaderSize) / size || !has_sound_keys(root, node, size))
    return damaged(root.logical);
  if (root.level == 0) return visit_leaf(node, visit);
  for (uint64_t i = 0; i < count; ++i) {
    const Fields pointer = node.part(kHeaderSize + kPointerSize * i, kPointerSize);
    RETURN_IF_ERROR(descend(
        {pointer.le64(17), static_cast<uint8_t>(root.level - 1), pointer.le64(25), key_of(pointer)},
        owner, visit));
  }
  return {};
}

}  // namespace vc::guest
