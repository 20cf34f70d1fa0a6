// Reads the superblock of ext2, ext3 and ext4, and computes places of metadata from it.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/rounding.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace vc::guest {

inline constexpr uint64_t kExtSuperblockAt = 1024;
inline constexpr uint64_t kExtSuperblockSize = 1024;

// Places and counts are in blocks, except where noted.
struct ExtSuperblock {
  uint32_t compat = 0;
  uint32_t incompat = 0;
  uint32_t ro_compat = 0;
  uint64_t block_size = 0;  // bytes
  uint64_t blocks = 0;
  uint64_t free_blocks = 0;
  uint64_t first = 0;  // first block of group 0
  uint64_t blocks_per_group = 0;
  uint64_t clusters_per_group = 0;
  uint64_t blocks_per_cluster = 1;
  uint64_t groups = 0;
  uint64_t inode_table = 0;  // blocks per table
  uint32_t inodes_per_group = 0;
  uint64_t inode_size = 0;       // bytes
  uint64_t descriptor_size = 0;  // bytes
  uint64_t reserved_descriptors = 0;
  uint64_t first_meta_group = 0;  // descriptor blocks before this group stand together
  std::array<uint32_t, 2> backups{};
  uint32_t checksum_seed = 0;
  Block uuid{16};
  std::string label;
  bool has_journal = false;
  uint32_t journal = 0;  // inode; 0: none

  // Returns an error if the filesystem is not clean, has an unknown feature, or contradicts itself.
  static Result<ExtSuperblock> read(const ByteView& view);

  bool has_metadata_checksums() const { return (ro_compat & 0x400) != 0; }
  bool has_group_checksums() const { return (ro_compat & 0x10) != 0; }
  bool has_meta_groups() const { return (incompat & 0x10) != 0; }
  bool is_64bit() const { return (incompat & 0x80) != 0; }
  const char* type() const;

  uint64_t descriptors_per_block() const { return block_size / descriptor_size; }
  uint64_t descriptor_blocks() const { return divide_up(groups, descriptors_per_block()); }
  uint64_t descriptor_block(uint64_t index) const;
  bool has_backup(uint64_t group) const;
  uint64_t group_begin(uint64_t group) const { return first + group * blocks_per_group; }
  uint64_t group_length(uint64_t group) const {
    return std::min(blocks_per_group, blocks - group_begin(group));
  }
  // Returns the block of the group's superblock, or where it would be.
  uint64_t superblock_of(uint64_t group) const { return group_begin(group) + boot_block(group); }
  // Adds the superblock and the descriptors in group `group`, as ranges of blocks.
  void add_metadata(uint64_t group, Ranges::Builder& out) const;

 private:
  Result<void> check_features(const Fields& it);
  Result<void> read_geometry(const Fields& it, uint64_t volume_size);
  Result<void> check_mount_protection(const Fields& it, const ByteView& view) const;
  // Returns 1 if the boot block is block 0 of group 0: with blocks of 1 KiB and clusters.
  uint64_t boot_block(uint64_t group) const {
    return group == 0 && first == 0 && block_size == 1024 ? 1 : 0;
  }
};

}  // namespace vc::guest
