#include "guest/filesystem/xfs_free_space.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/rounding.h"
#include "guest/filesystem/xfs_free_tree.h"
#include "guest/reading/checksums.h"
#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr size_t kAgfChecksum = 0xD8;
constexpr size_t kAgflChecksum = 0x20;
constexpr size_t kAgflHeader = 36;  // version 5 only
constexpr uint32_t kMostLevels = 9;

class FreeSpace {
 public:
  FreeSpace(const ByteView& view, const XfsSuperblock& super, uint64_t group)
      : view_(view),
        super_(super),
        group_(group),
        begin_(group * super.group_blocks),
        length_(super.group_length(group)) {}

  Result<uint64_t> read(Ranges::Builder& out, Ranges::Builder& own);

 private:
  Failure damaged(const char* what) const {
    return doubt(fmt::format("the {} of allocation group {} is damaged", what, group_));
  }
  Result<Block> read_header() const;
  Result<XfsFreeTree> read_tree(const Fields& header, XfsFreeTree::Order order) const;
  Result<void> check_counts(const Fields& header, const XfsFreeTree& tree) const;
  Result<Ranges> free_list(const Fields& header) const;

  const ByteView& view_;
  const XfsSuperblock& super_;
  const uint64_t group_;
  const uint64_t begin_;   // blocks
  const uint64_t length_;  // blocks
};

Result<Block> FreeSpace::read_header() const {
  ASSIGN_OR_RETURN(Block sector,
                   view_.block(begin_ * super_.block_size + super_.sector, super_.sector));
  const Fields it = sector.fields();
  if (!it.has(0, "XAGF") || it.be32(0x08) != group_ || it.be32(0x0C) != length_)
    return damaged("header");
  if (super_.is_v5 &&
      (!is_right_checksum(it.le32(kAgfChecksum), crc32c_without(sector.bytes(), kAgfChecksum)) ||
       it.text(0x40, 16) != super_.metadata_uuid))
    return doubt(fmt::format("the checksum of allocation group {} is wrong", group_));
  return sector;
}

Result<XfsFreeTree> FreeSpace::read_tree(const Fields& header, XfsFreeTree::Order order) const {
  const size_t at = order == XfsFreeTree::Order::kByBlock ? 0 : 4;
  const uint32_t levels = header.be32(0x1C + at);
  if (levels < 1 || levels > kMostLevels) return damaged("header");
  // The field counts the blocks of the trees without the roots. It is valid only if the filesystem
  // counts free blocks exactly.
  const uint64_t most = super_.has_exact_count ? header.be32(0x3C) + uint64_t{1} : length_;
  return XfsFreeTree::read(view_, super_, group_, order, header.be32(0x10 + at), levels,
                           std::min(most, length_));
}

Result<void> FreeSpace::check_counts(const Fields& header, const XfsFreeTree& tree) const {
  if (tree.free != header.be32(0x34) || tree.longest != header.be32(0x38))
    return doubt(fmt::format("allocation group {} has {} free blocks, but its header says {}",
                             group_, tree.free, header.be32(0x34)));
  return {};
}

// Returns the blocks reserved for the trees. The list is a ring of block numbers.
Result<Ranges> FreeSpace::free_list(const Fields& header) const {
  ASSIGN_OR_RETURN(const Block sector,
                   view_.block(begin_ * super_.block_size + 3 * super_.sector, super_.sector));
  const Fields it = sector.fields();
  if (super_.is_v5 &&
      (!it.has(0, "XAFL") || it.be32(4) != group_ || it.text(8, 16) != super_.metadata_uuid ||
       !is_right_checksum(it.le32(kAgflChecksum), crc32c_without(sector.bytes(), kAgflChecksum))))
    return damaged("free list");
  const size_t begin = super_.is_v5 ? kAgflHeader : 0;
  const uint64_t size = (super_.sector - begin) / 4;
  const uint64_t first = header.be32(0x28);
  const uint64_t last = header.be32(0x2C);
  const uint64_t count = header.be32(0x30);
  if (count == 0) return Ranges();
  if (first >= size || last >= size || count > size || (first + count - 1) % size != last)
    return damaged("free list");
  Ranges::Builder blocks;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t block = it.be32(begin + (first + i) % size * 4);
    if (block >= length_) return damaged("free list");
    blocks.add(begin_ + block, begin_ + block + 1);
  }
  Ranges list = blocks.take();
  if (list.total() != count) return damaged("free list");
  return list;
}

Result<uint64_t> FreeSpace::read(Ranges::Builder& out, Ranges::Builder& own) {
  ASSIGN_OR_RETURN(const Block sector, read_header());
  const Fields header = sector.fields();
  ASSIGN_OR_RETURN(XfsFreeTree tree, read_tree(header, XfsFreeTree::Order::kByBlock));
  RETURN_IF_ERROR(check_counts(header, tree));
  // Superblock, AGF, AGI and AGFL take one sector each.
  Ranges metadata =
      one_range(begin_, begin_ + divide_up(4 * super_.sector, super_.block_size)).with(tree.blocks);
  if (!super_.is_v5) {
    ASSIGN_OR_RETURN(const XfsFreeTree other, read_tree(header, XfsFreeTree::Order::kByLength));
    if (!(other.ranges == tree.ranges) || other.free != tree.free)
      return doubt(fmt::format("the two free space trees of allocation group {} differ", group_));
    metadata = metadata.with(other.blocks);
  }
  ASSIGN_OR_RETURN(const Ranges list, free_list(header));
  metadata = metadata.with(list);
  if (!tree.ranges.within(metadata).empty())
    return doubt(
        fmt::format("the free space tree of allocation group {} marks metadata as free", group_));
  for (const Range& range : tree.ranges.all()) out.add(range.begin, range.end);
  for (const Range& range : metadata.all()) own.add(range.begin, range.end);
  return tree.free + header.be32(0x30) + header.be32(0x3C);
}

}  // namespace

Result<uint64_t> read_xfs_free_space(const ByteView& view, const XfsSuperblock& super,
                                     uint64_t group, Ranges::Builder& out, Ranges::Builder& own) {
  return FreeSpace(view, super, group).read(out, own);
}

}  // namespace vc::guest
