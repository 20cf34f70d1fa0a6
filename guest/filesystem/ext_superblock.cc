#include "guest/filesystem/ext_superblock.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/rounding.h"
#include "guest/reading/checksums.h"

namespace vc::guest {

namespace {

// Supported features. Unsupported: compression, journals that must be replayed, external journals,
// and data in directories; of ro_compat: snapshots, replicas, and shared blocks.
constexpr uint32_t kKnownCompat = 0x1E3F;
constexpr uint32_t kKnownIncompat = 0x3E7D2;
constexpr uint32_t kKnownRoCompat = 0x1B77F;
constexpr uint32_t kRecover = 0x4;
constexpr uint32_t kJournalDevice = 0x8;

constexpr uint16_t kMagic = 0xEF53;
// With blocks of 4 KiB, these are 128 TiB. Limits the memory for group data.
constexpr uint64_t kMostGroups = 1 << 20;
constexpr uint64_t kMountProtectionMagic = 0x004D4D50;
constexpr uint32_t kMountProtectionClean = 0xFF4D4D50;

bool is_power_of(uint64_t n, uint64_t base) {
  while (n > 1 && n % base == 0) n /= base;
  return n == 1;
}

uint64_t with_high(uint32_t low, uint32_t high, bool is_64bit) {
  return low | (is_64bit ? uint64_t{high} << 32 : 0);
}

}  // namespace

Result<ExtSuperblock> ExtSuperblock::read(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(kExtSuperblockAt, kExtSuperblockSize));
  const Fields it = block.fields();
  if (it.le16(0x38) != kMagic) return doubt("it has no superblock");
  ExtSuperblock super;
  super.uuid = Block(it.part(0x68, 16));
  super.label = padded_text(it.part(0x78, 16));
  RETURN_IF_ERROR(super.check_features(it));
  RETURN_IF_ERROR(super.read_geometry(it, view.size()));
  RETURN_IF_ERROR(super.check_mount_protection(it, view));
  return super;
}

Result<void> ExtSuperblock::check_features(const Fields& it) {
  if (it.le32(0x4C) != 0) {
    compat = it.le32(0x5C);
    incompat = it.le32(0x60);
    ro_compat = it.le32(0x64);
  }
  has_journal = (compat & 4) != 0;
  if (has_journal) journal = it.le32(0xE0);
  if ((incompat & kJournalDevice) != 0) return doubt("it is the journal of another filesystem");
  // The state below may nevertheless be "clean".
  if ((incompat & kRecover) != 0) return unclean("its journal must be replayed");
  if ((compat & ~kKnownCompat) != 0 || (incompat & ~kKnownIncompat) != 0 ||
      (ro_compat & ~kKnownRoCompat) != 0)
    return doubt(
        fmt::format("it has unknown features ({:x}/{:x}/{:x})", compat, incompat, ro_compat));
  const uint16_t state = it.le16(0x3A);
  if ((state & 1) == 0) return unclean("it was not unmounted cleanly");
  if ((state & 2) != 0) return doubt("it has errors");
  if ((state & ~7) != 0) return doubt("its state is unknown");
  if (has_metadata_checksums()) {
    if (it.u8(0x175) != 1) return doubt("the type of its checksums is unknown");
    if (!is_right_checksum(it.le32(0x3FC), crc32c(~uint32_t{0}, it.bytes().first(0x3FC))))
      return doubt("the checksum of its superblock is wrong");
  }
  checksum_seed = (incompat & 0x2000) != 0 ? it.le32(0x270) : crc32c(~uint32_t{0}, uuid.bytes());
  return {};
}

Result<void> ExtSuperblock::read_geometry(const Fields& it, uint64_t volume_size) {
  const auto impossible = [] { return doubt("its geometry is invalid"); };
  const uint32_t block_bits = it.le32(0x18);
  if (block_bits > 6) return impossible();
  block_size = uint64_t{1024} << block_bits;
  blocks = with_high(it.le32(0x04), it.le32(0x150), is_64bit());
  free_blocks = with_high(it.le32(0x0C), it.le32(0x158), is_64bit());
  first = it.le32(0x14);
  blocks_per_group = it.le32(0x20);
  clusters_per_group = blocks_per_group;
  if ((ro_compat & 0x200) != 0) {
    const uint32_t cluster_bits = it.le32(0x1C);
    if (cluster_bits < block_bits || cluster_bits - block_bits >= 20) return impossible();
    blocks_per_cluster = uint64_t{1} << (cluster_bits - block_bits);
    clusters_per_group = it.le32(0x24);
  }
  if (clusters_per_group == 0 || clusters_per_group % 8 != 0 ||
      clusters_per_group > block_size * 8 ||
      blocks_per_group != clusters_per_group * blocks_per_cluster || first > 1 || blocks <= first)
    return impossible();
  if (blocks > volume_size / block_size) return doubt("it is larger than its partition");
  groups = divide_up(blocks - first, blocks_per_group);
  if (groups > kMostGroups) return doubt("it has too many block groups");
  inode_size = it.le32(0x4C) != 0 ? it.le16(0x58) : 128;
  inodes_per_group = it.le32(0x28);
  if (inodes_per_group == 0 || inode_size < 128 || inode_size > block_size) return impossible();
  inode_table = divide_up(inodes_per_group * inode_size, block_size);
  descriptor_size = is_64bit() ? it.le16(0xFE) : 32;
  if (descriptor_size < (is_64bit() ? 64 : 32) || descriptor_size > block_size ||
      !is_power_of_two(descriptor_size))
    return impossible();
  reserved_descriptors = it.le16(0xCE);
  first_meta_group = has_meta_groups() ? it.le32(0x104) : descriptor_blocks();
  backups = {it.le32(0x24C), it.le32(0x250)};
  return {};
}

Result<void> ExtSuperblock::check_mount_protection(const Fields& it, const ByteView& view) const {
  if ((incompat & 0x100) == 0) return {};
  const uint64_t at = it.le64(0x168);
  if (at < first || at >= blocks) return doubt("its mount protection block is outside of it");
  ASSIGN_OR_RETURN(const Block block, view.block(at * block_size, block_size));
  const Fields protection = block.fields();
  if (protection.le32(0) != kMountProtectionMagic || protection.le32(4) != kMountProtectionClean)
    return unclean("its mount protection says that it is in use");
  return {};
}

const char* ExtSuperblock::type() const {
  // Follows libblkid: features such as extents make the filesystem an ext4.
  if ((incompat & ~0x16u) != 0 || (ro_compat & ~0x7u) != 0) return "ext4";
  return has_journal ? "ext3" : "ext2";
}

bool ExtSuperblock::has_backup(uint64_t group) const {
  if (group == 0) return true;
  if ((compat & 0x200) != 0) return group == backups[0] || group == backups[1];
  if (group == 1 || (ro_compat & 1) == 0) return true;
  return is_power_of(group, 3) || is_power_of(group, 5) || is_power_of(group, 7);
}

uint64_t ExtSuperblock::descriptor_block(uint64_t index) const {
  if (!has_meta_groups() || index < first_meta_group) return first + 1 + index + boot_block(0);
  const uint64_t group = index * descriptors_per_block();
  return superblock_of(group) + (has_backup(group) ? 1 : 0);
}

void ExtSuperblock::add_metadata(uint64_t group, Ranges::Builder& out) const {
  const uint64_t super = superblock_of(group);
  const uint64_t together =
      has_meta_groups() ? first_meta_group : descriptor_blocks() + reserved_descriptors;
  if (has_backup(group)) out.add(super, super + 1 + together);
  const uint64_t in_meta_group = group % descriptors_per_block();
  if (has_meta_groups() && group / descriptors_per_block() >= first_meta_group &&
      (in_meta_group <= 1 || in_meta_group == descriptors_per_block() - 1)) {
    const uint64_t at = super + (has_backup(group) ? 1 : 0);
    out.add(at, at + 1);
  }
}

}  // namespace vc::guest
