#include "guest/filesystem/xfs.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "guest/filesystem/xfs_log.h"
#include "guest/reading/checksums.h"

namespace vc::guest {

namespace {

// What is understood of version 5: file types, sparse inodes, metadata UUID, big timestamps,
// nrext64, exchange-range and parent pointers.  Not: "needs repair".
constexpr uint32_t kKnownIncompat = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80;
constexpr uint32_t kMetadataUuid = 0x4;
constexpr uint32_t kKnownRoCompat = 0xF;
constexpr uint32_t kMostLevels = 9;
constexpr uint64_t kMostNeighbours = 64;
constexpr uint64_t kSector = 512;
constexpr size_t kSuperChecksum = 0xE0;
constexpr size_t kAgfChecksum = 0xD8;
constexpr size_t kTreeChecksum = 0x34;
// What an allocation group is at least; its count is limited by this.
constexpr uint64_t kLeastGroup = 64;  // blocks

bool probe(const Fields& head) {
  return head.has(0, "XFSB");
}

// All places and counts are in blocks, unless they say otherwise.
struct Superblock {
  uint64_t block_size = 0;  // bytes
  uint64_t blocks = 0;
  uint64_t group_blocks = 0;
  uint64_t groups = 0;
  uint64_t sector = 0;  // bytes
  uint64_t log_at = 0;
  uint64_t log_blocks = 0;
  uint64_t free_blocks = 0;
  bool has_exact_count = false;  // `free_blocks` counts on a clean filesystem
  bool is_v5 = false;
  std::string metadata_uuid;  // bytes
};

Result<void> check_version(const ByteView& view, const Fields& it, Superblock& super) {
  const unsigned version = it.be16(0x64) & 0xF;
  super.is_v5 = version == 5;
  super.metadata_uuid = it.text(0x20, 16);
  if (version == 4) {
    super.has_exact_count = (it.be16(0x64) & 0x2000) != 0 && (it.be32(0xC8) & 2) != 0;
    return {};
  }
  if (version != 5) return doubt(fmt::format("version {} is unknown", version));
  super.has_exact_count = true;
  ASSIGN_OR_RETURN(const Block sector, view.block(0, super.sector));
  if (!is_right_checksum(it.le32(kSuperChecksum), crc32c_without(sector.bytes(), kSuperChecksum)))
    return doubt("the checksum of its superblock is wrong");
  const uint32_t ro_compat = it.be32(0xD4);
  const uint32_t incompat = it.be32(0xD8);
  if ((incompat & 0x10) != 0) return doubt("it must be repaired first");
  if ((incompat & ~kKnownIncompat) != 0 || (ro_compat & ~kKnownRoCompat) != 0)
    return doubt(fmt::format("it has unknown features ({:x}/{:x})", incompat, ro_compat));
  if ((incompat & kMetadataUuid) != 0) super.metadata_uuid = it.text(0xF8, 16);
  return {};
}

Result<Superblock> read_superblock(const ByteView& view, const Fields& it) {
  const auto impossible = [] { return doubt("its geometry is invalid"); };
  Superblock super;
  super.block_size = it.be32(0x04);
  super.blocks = it.be64(0x08);
  super.group_blocks = it.be32(0x54);
  super.groups = it.be32(0x58);
  super.sector = it.be16(0x66);
  super.free_blocks = it.be64(0x90);
  const unsigned group_bits = it.u8(0x7C);
  if (it.u8(0x78) > 16 || super.block_size != uint64_t{1} << it.u8(0x78) ||
      super.block_size < 512 || !is_power_of_two(super.sector) || super.sector < 512 ||
      super.sector > 32768 || super.group_blocks < kLeastGroup || super.groups == 0 ||
      group_bits > 32 || uint64_t{1} << group_bits < super.group_blocks)
    return impossible();
  if (super.blocks > view.size() / super.block_size)
    return doubt("it is larger than its partition");
  if ((super.groups - 1) * super.group_blocks >= super.blocks ||
      super.blocks > super.groups * super.group_blocks)
    return impossible();
  if (it.u8(0x7E) != 0) return doubt("mkfs has not finished");
  RETURN_IF_ERROR(check_version(view, it, super));
  const uint64_t log = it.be64(0x30);
  if (log == 0) return doubt("its log is on another device");
  const uint64_t group = log >> group_bits;
  const uint64_t within = log & ((uint64_t{1} << group_bits) - 1);
  super.log_blocks = it.be32(0x60);
  if (group >= super.groups || within + super.log_blocks > super.group_blocks) return impossible();
  super.log_at = group * super.group_blocks + within;
  if (super.log_at + super.log_blocks > super.blocks) return impossible();
  return super;
}

// The free space B+tree of one allocation group, sorted by block number.
class FreeTree {
 public:
  FreeTree(const ByteView& view, const Superblock& super, uint64_t group)
      : view_(view),
        super_(super),
        group_(group),
        begin_(group * super.group_blocks),
        length_(std::min(super.group_blocks, super.blocks - begin_)) {}

  // Adds the free blocks.  Returns how many there are, with those that the tree itself and the free
  // list have.
  Result<uint64_t> read(Ranges::Builder& out);

 private:
  size_t header() const { return super_.is_v5 ? 56 : 16; }
  // A block of the tree, and its first key as its parent has it; nothing for the root.
  struct Node {
    uint64_t block;
    std::optional<uint32_t> first;
  };
  Result<std::vector<Node>> read_level(const std::vector<Node>& nodes, uint32_t level,
                                       Ranges::Builder& out);
  Result<void> add_children(const Fields& it, std::vector<Node>& children) const;
  Result<void> check_block(const Fields& it, const Node& node, uint32_t level) const;
  Result<void> check_metadata(const Ranges& free);
  Result<void> add_records(const Fields& it, Ranges::Builder& out);

  const ByteView& view_;
  const Superblock& super_;
  const uint64_t group_;
  const uint64_t begin_;
  const uint64_t length_;
  uint64_t seen_ = 0;  // blocks of the tree
  Ranges::Builder tree_;
  uint64_t position_ = 0;  // past the last record
  uint64_t free_ = 0;
  uint64_t longest_ = 0;
};

Result<uint64_t> FreeTree::read(Ranges::Builder& out) {
  ASSIGN_OR_RETURN(const Block sector,
                   view_.block(begin_ * super_.block_size + super_.sector, super_.sector));
  const Fields it = sector.fields();
  if (!it.has(0, "XAGF") || it.be32(0x08) != group_ || it.be32(0x0C) != length_)
    return doubt(fmt::format("the header of allocation group {} is damaged", group_));
  if (super_.is_v5 &&
      (!is_right_checksum(it.le32(kAgfChecksum), crc32c_without(sector.bytes(), kAgfChecksum)) ||
       it.text(0x40, 16) != super_.metadata_uuid))
    return doubt(fmt::format("the checksum of allocation group {} is wrong", group_));
  const uint32_t levels = it.be32(0x1C);
  if (levels < 1 || levels > kMostLevels)
    return doubt(fmt::format("the header of allocation group {} is damaged", group_));
  Ranges::Builder group;
  std::vector<Node> nodes{{it.be32(0x10), std::nullopt}};
  for (uint32_t level = levels; level-- > 0;) {
    ASSIGN_OR_RETURN(nodes, read_level(nodes, level, group));
  }
  const Ranges free = group.take();
  RETURN_IF_ERROR(check_metadata(free));
  for (const Range& range : free.all()) out.add(range.begin, range.end);
  if (free_ != it.be32(0x34) || longest_ != it.be32(0x38))
    return doubt(fmt::format("allocation group {} has {} free blocks, but its header says {}",
                             group_, free_, it.be32(0x34)));
  return free_ + it.be32(0x30) + it.be32(0x3C);
}

// Version 4 has no checksums.
Result<void> FreeTree::check_metadata(const Ranges& free) {
  // Superblock, AGF, AGI and AGFL, a sector each.
  const uint64_t headers = (4 * super_.sector + super_.block_size - 1) / super_.block_size;
  bool is_free = free.meets(begin_, begin_ + headers);
  const Ranges tree = tree_.take();
  for (const Range& range : tree.all()) is_free = is_free || free.meets(range.begin, range.end);
  if (is_free)
    return doubt(
        fmt::format("the free space tree of allocation group {} marks metadata as free", group_));
  return {};
}

// Returns the nodes of the next level; those of the last level have none.
Result<std::vector<FreeTree::Node>> FreeTree::read_level(const std::vector<Node>& nodes,
                                                         uint32_t level, Ranges::Builder& out) {
  std::vector<Node> next;
  const uint64_t size = super_.block_size;
  for (size_t i = 0; i < nodes.size();) {
    const uint64_t block = nodes[i].block;
    size_t neighbours = 1;
    while (i + neighbours < nodes.size() && neighbours < kMostNeighbours &&
           nodes[i + neighbours].block == block + neighbours)
      ++neighbours;
    seen_ += neighbours;
    if (block == 0 || block + neighbours > length_ || seen_ > length_)
      return doubt(fmt::format("the free space tree of allocation group {} is damaged", group_));
    tree_.add(begin_ + block, begin_ + block + neighbours);
    ASSIGN_OR_RETURN(const Block bytes, view_.block((begin_ + block) * size, neighbours * size));
    for (size_t k = 0; k < neighbours; ++k) {
      const Fields it = bytes.fields().part(k * size, size);
      RETURN_IF_ERROR(check_block(it, nodes[i + k], level));
      if (level == 0)
        RETURN_IF_ERROR(add_records(it, out));
      else
        RETURN_IF_ERROR(add_children(it, next));
    }
    i += neighbours;
  }
  return next;
}

// Keys ascend over a whole level, and a block's first key is the one that its parent has: so no
// block is there twice.
Result<void> FreeTree::add_children(const Fields& it, std::vector<Node>& children) const {
  const size_t pointers = header() + (super_.block_size - header()) / 12 * 8;
  for (size_t n = 0; n < it.be16(6); ++n) {
    const uint32_t key = it.be32(header() + 8 * n);
    if (!children.empty() && key <= *children.back().first)
      return doubt(fmt::format("the free space tree of allocation group {} is damaged", group_));
    children.push_back({it.be32(pointers + 4 * n), key});
  }
  return {};
}

Result<void> FreeTree::check_block(const Fields& it, const Node& node, uint32_t level) const {
  const auto damaged = [&] {
    return doubt(fmt::format("the free space tree of allocation group {} is damaged", group_));
  };
  if (!it.has(0, super_.is_v5 ? "AB3B" : "ABTB") || it.be16(4) != level) return damaged();
  const size_t most = (it.size() - header()) / (level == 0 ? 8 : 12);
  if (it.be16(6) > most || (it.be16(6) == 0 && (level > 0 || node.first))) return damaged();
  if (node.first && it.be32(header()) != *node.first) return damaged();
  if (!super_.is_v5) return {};
  if (!is_right_checksum(it.le32(kTreeChecksum), crc32c_without(it.bytes(), kTreeChecksum)) ||
      it.be32(0x30) != group_ ||
      it.be64(0x10) != (begin_ + node.block) * super_.block_size / kSector)
    return damaged();
  return {};
}

Result<void> FreeTree::add_records(const Fields& it, Ranges::Builder& out) {
  for (size_t n = 0; n < it.be16(6); ++n) {
    const uint64_t start = it.be32(header() + 8 * n);
    const uint64_t count = it.be32(header() + 8 * n + 4);
    if (start < position_ || count == 0 || start + count > length_)
      return doubt(fmt::format("the free space tree of allocation group {} is damaged", group_));
    position_ = start + count;
    free_ += count;
    longest_ = std::max(longest_, count);
    out.add(begin_ + start, begin_ + start + count);
  }
  return {};
}

Result<Reading> read(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, 512));
  const Fields it = block.fields();
  ASSIGN_OR_RETURN(const Superblock super, read_superblock(view, it));
  RETURN_IF_ERROR(check_xfs_log(view, super.log_at * super.block_size,
                                super.log_blocks * super.block_size / kSector));
  Ranges::Builder free;
  uint64_t sum = 0;
  for (uint64_t group = 0; group < super.groups; ++group) {
    ASSIGN_OR_RETURN(const uint64_t counted, FreeTree(view, super, group).read(free));
    sum += counted;
  }
  if (super.has_exact_count && sum != super.free_blocks)
    return doubt(fmt::format("its superblock says that {} blocks are free, but {} are",
                             super.free_blocks, sum));
  Reading reading;
  const Ranges blocks = free.take();
  if (blocks.meets(super.log_at, super.log_at + super.log_blocks))
    return doubt("its free space tree marks the log as free");
  reading.free = blocks.scaled(super.block_size, 0);
  reading.uuid = uuid_text(it.part(0x20, 16));
  reading.label = padded_text(it.part(0x6C, 12));
  return reading;
}

}  // namespace

const Format kXfs{"xfs", probe, read, no_swap_files};

}  // namespace vc::guest
