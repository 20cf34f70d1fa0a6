#include "guest/filesystem/ext_inode.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "guest/reading/checksums.h"

namespace vc::guest {

namespace {

constexpr uint16_t kExtentMagic = 0xF30A;
constexpr unsigned kDeepest = 5;  // levels of an extent tree
constexpr size_t kExtentSize = 12;
constexpr size_t kMapAt = 0x28;
constexpr size_t kMapSize = 60;
constexpr unsigned kDirectBlocks = 12;
constexpr size_t kTailSize = 12;  // end of a directory block, with its checksum
constexpr uint64_t kLargestDirectory = 64 << 20;
constexpr size_t kMostMapBlocks = 1 << 16;
constexpr uint64_t kRoot = 2;

enum Flag : uint32_t {
  kCompressed = 0x4,
  kEncrypted = 0x800,
  kIndexed = 0x1000,
  kExtents = 0x80000,
};
// Unsupported flags: also fs-verity, extended attributes as contents, and inline data.
constexpr uint32_t kNotUnderstood = kCompressed | kEncrypted | 0x100000 | 0x200000 | 0x10000000;

Failure damaged(uint64_t number) {
  return doubt(fmt::format("its inode {} is damaged", number));
}

std::array<std::byte, 4> le_bytes(uint32_t value) {
  std::array<std::byte, 4> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(value >> (8 * i) & 0xFF);
  return bytes;
}

}  // namespace

Result<ExtInode> ExtFiles::inode(uint64_t number) const {
  ExtInode inode;
  inode.number = number;
  if (number == 0 || (number - 1) / super_.inodes_per_group >= inode_tables_.size())
    return damaged(number);
  const uint64_t table = inode_tables_[(number - 1) / super_.inodes_per_group];
  const uint64_t index = (number - 1) % super_.inodes_per_group;
  ASSIGN_OR_RETURN(
      const Block bytes,
      view().block(table * super_.block_size + index * super_.inode_size, super_.inode_size));
  const Fields it = bytes.fields();
  RETURN_IF_ERROR(check_checksum(number, it, inode));
  const unsigned kind = it.le16(0) >> 12;
  inode.is_directory = kind == 4;
  inode.is_file = kind == 8;
  inode.is_symbolic_link = kind == 10;
  inode.size = it.le32(4) | uint64_t{it.le32(0x6C)} << 32;
  if (it.le16(0x1A) == 0) return damaged(number);
  if (!inode.is_directory && !inode.is_file) return inode;
  const uint32_t flags = it.le32(0x20);
  if ((flags & kNotUnderstood) != 0)
    return doubt(fmt::format("its inode {} is encrypted, or stored in another way", number));
  inode.is_indexed = inode.is_directory && (flags & kIndexed) != 0;
  if ((flags & kExtents) != 0)
    RETURN_IF_ERROR(read_extents(it.part(kMapAt, kMapSize), kDeepest, inode));
  else
    RETURN_IF_ERROR(read_block_map(it.part(kMapAt, kMapSize), inode));
  return inode;
}

Result<void> ExtFiles::check_checksum(uint64_t number, const Fields& it, ExtInode& inode) const {
  if (!super_.has_metadata_checksums()) return {};
  inode.checksum_seed =
      crc32c(crc32c(super_.checksum_seed, le_bytes(static_cast<uint32_t>(number))),
             le_bytes(it.le32(0x64)));
  Block zeroed(it);
  std::memset(zeroed.bytes().data() + 0x7C, 0, 2);
  const bool has_high = it.size() > 128 && it.le16(0x80) >= 4;
  if (has_high) std::memset(zeroed.bytes().data() + 0x82, 0, 2);
  const uint32_t crc = crc32c(inode.checksum_seed, zeroed.bytes());
  if (!is_right_checksum(it.le16(0x7C), crc & 0xFFFF) ||
      (has_high && !is_right_checksum(it.le16(0x82), crc >> 16)))
    return doubt(fmt::format("the checksum of its inode {} is wrong", number));
  return {};
}

Result<void> ExtFiles::add_run(const FileRun& run, ExtInode& inode) const {
  if (run.block < super_.first || run.block >= super_.blocks ||
      run.length > super_.blocks - run.block || !inode.add(run))
    return damaged(inode.number);
  return {};
}

Result<void> ExtFiles::add_map_block(uint64_t block, ExtInode& inode) const {
  if (block < super_.first || block >= super_.blocks || inode.map_blocks.size() == kMostMapBlocks)
    return damaged(inode.number);
  inode.map_blocks.push_back(block);
  return {};
}

// `depth`: most levels that the node may have.
Result<void> ExtFiles::read_extents(const Fields& node, unsigned depth, ExtInode& inode) const {
  const size_t count = node.le16(2);
  const unsigned level = node.le16(6);
  if (node.le16(0) != kExtentMagic || count > node.le16(4) ||
      (count + 1) * kExtentSize > node.size() || level > depth)
    return damaged(inode.number);
  for (size_t i = 1; i <= count; ++i) {
    const Fields it = node.part(i * kExtentSize, kExtentSize);
    if (level > 0) {
      RETURN_IF_ERROR(read_extent_block(it.le32(4) | uint64_t{it.le16(8)} << 32, level - 1, inode));
      continue;
    }
    // A larger length marks an extent that is allocated but not written.
    constexpr uint64_t kLongest = 1 << 15;
    const uint64_t length = it.le16(4);
    const bool is_written = length <= kLongest;
    RETURN_IF_ERROR(add_run({it.le32(0), it.le32(8) | uint64_t{it.le16(6)} << 32,
                             is_written ? length : length - kLongest, is_written},
                            inode));
  }
  return {};
}

Result<void> ExtFiles::read_extent_block(uint64_t block, unsigned depth, ExtInode& inode) const {
  RETURN_IF_ERROR(add_map_block(block, inode));
  ASSIGN_OR_RETURN(const Block bytes, view().block(block * super_.block_size, super_.block_size));
  const Fields node = bytes.fields();
  if (node.le16(6) != depth) return damaged(inode.number);
  if (super_.has_metadata_checksums()) {
    const size_t tail = (node.le16(4) + size_t{1}) * kExtentSize;
    if (tail + 4 > node.size() ||
        !is_right_checksum(node.le32(tail), crc32c(inode.checksum_seed, bytes.bytes().first(tail))))
      return doubt(fmt::format("the checksum of a block of its inode {} is wrong", inode.number));
  }
  return read_extents(node, depth, inode);
}

Result<void> ExtFiles::read_block_map(const Fields& map, ExtInode& inode) const {
  uint64_t logical = 0;
  for (; logical < kDirectBlocks; ++logical)
    if (const uint32_t block = map.le32(4 * logical); block != 0)
      RETURN_IF_ERROR(add_run({logical, block, 1}, inode));
  for (unsigned level = 1; level <= 3; ++level)
    RETURN_IF_ERROR(
        read_indirect(map.le32(4 * (kDirectBlocks + level - size_t{1})), level, logical, inode));
  return {};
}

// Reads a block of block numbers. At `level` 1, they are blocks of the file; 0 is a hole.
Result<void> ExtFiles::read_indirect(uint64_t block, unsigned level, uint64_t& logical,
                                     ExtInode& inode) const {
  const uint64_t count = super_.block_size / 4;
  if (block == 0) {
    uint64_t length = 1;
    for (unsigned i = 0; i < level; ++i) length *= count;
    logical += length;
    return {};
  }
  RETURN_IF_ERROR(add_map_block(block, inode));
  ASSIGN_OR_RETURN(const Block bytes, view().block(block * super_.block_size, super_.block_size));
  for (uint64_t i = 0; i < count; ++i) {
    const uint32_t next = bytes.fields().le32(4 * i);
    if (level > 1) {
      RETURN_IF_ERROR(read_indirect(next, level - 1, logical, inode));
    } else {
      if (next != 0) RETURN_IF_ERROR(add_run({logical, next, 1}, inode));
      ++logical;
    }
  }
  return {};
}

Result<std::optional<MappedFile>> ExtFiles::find(std::string_view path) const {
  ASSIGN_OR_RETURN(ExtInode root, inode(kRoot));
  const auto child = [this](const ExtInode& directory,
                            std::string_view name) -> Result<std::optional<ExtInode>> {
    ASSIGN_OR_RETURN(const auto number, look_up(directory, name));
    if (!number) return std::optional<ExtInode>();
    return inode(*number);
  };
  ASSIGN_OR_RETURN(auto found, follow(std::move(root), path, child));
  return found ? std::optional<MappedFile>(std::move(*found)) : std::nullopt;
}

Result<std::optional<uint32_t>> ExtFiles::look_up(const ExtInode& directory,
                                                  std::string_view name) const {
  const uint64_t unit = super_.block_size;
  if (directory.size > kLargestDirectory || directory.size % unit != 0)
    return damaged(directory.number);
  RETURN_IF_ERROR(count_directory(directory.size));
  for (const FileRun& run : directory.runs)
    for (uint64_t i = 0; i < run.length && (run.logical + i) * unit < directory.size; ++i) {
      ASSIGN_OR_RETURN(const Block block, view().block((run.block + i) * unit, unit));
      const Fields it = block.fields();
      // A block of the index holds only the first two entries, and another checksum.
      const bool is_index =
          directory.is_indexed && (run.logical + i == 0 || (it.le32(0) == 0 && it.le16(4) == unit));
      if (!is_index) RETURN_IF_ERROR(check_entries(it, directory));
      ASSIGN_OR_RETURN(const auto found, look_up_in(it, directory, name));
      if (found) return found;
    }
  return std::optional<uint32_t>();
}

// The last entry of a block is not a file: it holds the checksum.
Result<void> ExtFiles::check_entries(const Fields& block, const ExtInode& directory) const {
  const size_t tail = block.size() - kTailSize;
  const bool has_tail = block.le32(tail) == 0 && block.le16(tail + 4) == kTailSize &&
                        block.u8(tail + 6) == 0 && block.u8(tail + 7) == 0xDE;
  if (super_.has_metadata_checksums() && has_tail &&
      !is_right_checksum(block.le32(tail + 8),
                         crc32c(directory.checksum_seed, block.bytes().first(tail))))
    return doubt(fmt::format("the checksum of its directory {} is wrong", directory.number));
  return {};
}

Result<std::optional<uint32_t>> ExtFiles::look_up_in(const Fields& block, const ExtInode& directory,
                                                     std::string_view name) const {
  for (size_t at = 0; at + 8 <= block.size();) {
    size_t length = block.le16(at + 4);
    // Both values mean 64 KiB.
    if (length == 0 || length == 0xFFFF) length = 64 << 10;
    if (length < 8 || length % 4 != 0 || length > block.size() - at)
      return damaged(directory.number);
    const uint32_t number = block.le32(at);
    if (number != 0 && block.text(at + 8, block.u8(at + 6)) == name) return std::optional(number);
    at += length;
  }
  return std::optional<uint32_t>();
}

}  // namespace vc::guest
