#include "guest/filesystem/xfs_inode.h"

#include <fmt/format.h>

#include <utility>

#include "guest/filesystem/xfs_directory.h"
#include "guest/reading/checksums.h"
#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr uint64_t kSector = 512;
constexpr size_t kInodeChecksum = 100;
constexpr size_t kNodeChecksum = 64;
constexpr size_t kRecord = 16;  // of a map, bytes
constexpr unsigned kMostLevels = 9;
constexpr size_t kMostMapBlocks = 1 << 16;
constexpr uint64_t kLargestDirectory = 64 << 20;

// Where the contents of a file are stored.
enum Format : uint8_t { kWithin = 1, kExtents = 2, kTree = 3 };
enum Flag : uint64_t { kRealtime = 1 };
enum Flag2 : uint64_t { kShared = 2, kManyExtents = 0x10, kMetadata = 0x20 };

Failure damaged(uint64_t number) {
  return doubt(fmt::format("its inode {} is damaged", number));
}

}  // namespace

Result<XfsInode> XfsFiles::inode(uint64_t number) const {
  const uint64_t block = super_.block_of(number >> super_.inode_bits);
  if (block == super_.blocks) return damaged(number);
  const uint64_t index = number & ((uint64_t{1} << super_.inode_bits) - 1);
  ASSIGN_OR_RETURN(
      const Block bytes,
      view().block(block * super_.block_size + index * super_.inode_size, super_.inode_size));
  const Fields it = bytes.fields();
  RETURN_IF_ERROR(check_header(it, number));
  XfsInode inode;
  inode.number = number;
  inode.map_blocks.push_back(block);
  const unsigned kind = it.be16(2) >> 12;
  inode.is_directory = kind == 4;
  inode.is_file = kind == 8;
  inode.is_symbolic_link = kind == 10;
  inode.size = it.be64(56);
  if (inode.is_directory || inode.is_file) RETURN_IF_ERROR(read_contents(it, inode));
  return inode;
}

Result<void> XfsFiles::check_header(const Fields& it, uint64_t number) const {
  const unsigned version = super_.is_v5 ? 3 : 2;
  if (!it.has(0, "IN") || it.u8(4) != version || it.be32(16) == 0) return damaged(number);
  if (!super_.is_v5) return {};
  if (!is_right_checksum(it.le32(kInodeChecksum), crc32c_without(it.bytes(), kInodeChecksum)))
    return doubt(fmt::format("the checksum of its inode {} is wrong", number));
  if (it.be64(152) != number || it.text(160, 16) != super_.metadata_uuid) return damaged(number);
  return {};
}

Result<void> XfsFiles::read_contents(const Fields& it, XfsInode& inode) const {
  const size_t header = super_.is_v5 ? 176 : 100;
  const uint64_t flags2 = super_.is_v5 ? it.be64(120) : 0;
  if ((it.be16(90) & kRealtime) != 0 || (flags2 & kMetadata) != 0)
    return doubt(fmt::format("its inode {} lies on another device, or is metadata", inode.number));
  inode.may_share = (flags2 & kShared) != 0;
  // Attributes follow the contents, if there are any.
  const size_t length = it.u8(82) != 0 ? size_t{it.u8(82)} * 8 : it.size() - header;
  if (length > it.size() - header) return damaged(inode.number);
  const Fields fork = it.part(header, length);
  const uint64_t count = (flags2 & kManyExtents) != 0 ? it.be64(24) : it.be32(76);
  switch (it.u8(5)) {
    case kWithin:
      if (!inode.is_directory || inode.size > fork.size()) return damaged(inode.number);
      inode.is_within = true;
      inode.within = Block(fork.part(0, inode.size));
      return {};
    case kExtents:
      if (count > fork.size() / kRecord) return damaged(inode.number);
      RETURN_IF_ERROR(read_records(fork, count, inode));
      break;
    case kTree:
      RETURN_IF_ERROR(read_root(fork, inode));
      break;
    default:
      return damaged(inode.number);
  }
  uint64_t blocks = inode.map_blocks.size() - 1;
  for (const FileRun& run : inode.runs) blocks += run.length;
  // Attributes may use some of the blocks, too.
  if (inode.records != count || blocks > it.be64(64)) return damaged(inode.number);
  return {};
}

// A record is a bit and three numbers of 54, 52 and 21 bits.
Result<void> XfsFiles::read_records(const Fields& records, size_t count, XfsInode& inode) const {
  for (size_t i = 0; i < count; ++i) {
    const uint64_t high = records.be64(i * kRecord);
    const uint64_t low = records.be64(i * kRecord + 8);
    FileRun run{};
    run.is_written = high >> 63 == 0;
    run.logical = (high & ~(uint64_t{1} << 63)) >> 9;
    run.block = super_.block_of((high & 0x1FF) << 43 | low >> 21);
    run.length = low & 0x1FFFFF;
    if (run.block == super_.blocks) return damaged(inode.number);
    const uint64_t group = run.block / super_.group_blocks;
    if (run.length > super_.group_length(group) - run.block % super_.group_blocks ||
        !inode.add(run))
      return damaged(inode.number);
  }
  inode.records += count;
  return {};
}

Result<void> XfsFiles::read_root(const Fields& root, XfsInode& inode) const {
  const unsigned level = root.be16(0);
  const size_t count = root.be16(2);
  const size_t most = (root.size() - std::min<size_t>(root.size(), 4)) / kRecord;
  if (level == 0 || level > kMostLevels || count == 0 || count > most) return damaged(inode.number);
  for (size_t i = 0; i < count; ++i)
    RETURN_IF_ERROR(read_node(root.be64(4 + most * 8 + i * 8), level - 1, inode));
  return {};
}

Result<void> XfsFiles::read_node(uint64_t number, unsigned level, XfsInode& inode) const {
  const uint64_t block = super_.block_of(number);
  if (block == super_.blocks || inode.map_blocks.size() == kMostMapBlocks)
    return damaged(inode.number);
  inode.map_blocks.push_back(block);
  ASSIGN_OR_RETURN(const Block bytes, view().block(block * super_.block_size, super_.block_size));
  const Fields node = bytes.fields();
  RETURN_IF_ERROR(check_node(node, block, level, inode));
  const size_t header = super_.is_v5 ? 72 : 24;
  const size_t most = (node.size() - header) / kRecord;
  const size_t count = node.be16(6);
  if (count == 0 || count > most) return damaged(inode.number);
  if (level == 0) return read_records(node.part(header), count, inode);
  for (size_t i = 0; i < count; ++i)
    RETURN_IF_ERROR(read_node(node.be64(header + most * 8 + i * 8), level - 1, inode));
  return {};
}

Result<void> XfsFiles::check_node(const Fields& node, uint64_t block, unsigned level,
                                  const XfsInode& inode) const {
  if (!node.has(0, super_.is_v5 ? "BMA3" : "BMAP") || node.be16(4) != level)
    return damaged(inode.number);
  if (super_.is_v5 &&
      (!is_right_checksum(node.le32(kNodeChecksum), crc32c_without(node.bytes(), kNodeChecksum)) ||
       node.be64(24) != block * super_.block_size / kSector ||
       node.text(40, 16) != super_.metadata_uuid || node.be64(56) != inode.number))
    return damaged(inode.number);
  return {};
}

Result<std::optional<MappedFile>> XfsFiles::find(std::string_view path) const {
  ASSIGN_OR_RETURN(XfsInode root, inode(super_.root));
  const auto child = [this](const XfsInode& directory,
                            std::string_view name) -> Result<std::optional<XfsInode>> {
    ASSIGN_OR_RETURN(const auto number, look_up(directory, name));
    if (!number) return std::optional<XfsInode>();
    return inode(*number);
  };
  ASSIGN_OR_RETURN(auto found, follow(std::move(root), path, child));
  return found ? std::optional<MappedFile>(std::move(*found)) : std::nullopt;
}

// Skips the index, which may follow the entries.
Result<std::optional<uint64_t>> XfsFiles::look_up(const XfsInode& directory,
                                                  std::string_view name) const {
  if (directory.is_within) return find_in_xfs_inode(directory.within.fields(), name, super_);
  const uint64_t unit = super_.directory_block;
  if (directory.size > kLargestDirectory || directory.size % unit != 0)
    return damaged(directory.number);
  RETURN_IF_ERROR(count_directory(directory.size));
  for (uint64_t at = 0; at < directory.size; at += unit) {
    const uint64_t logical = at / super_.block_size;
    const FileRun* const run = directory.run_of(logical);
    if (!run) continue;
    ASSIGN_OR_RETURN(const Block block, read(directory, at, unit));
    ASSIGN_OR_RETURN(
        const auto found,
        find_in_xfs_block(block.fields(), name, super_, directory.number,
                          (run->block + (logical - run->logical)) * super_.block_size));
    if (found) return found;
  }
  return std::optional<uint64_t>();
}

}  // namespace vc::guest
