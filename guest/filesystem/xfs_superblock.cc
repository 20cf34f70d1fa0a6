#include "guest/filesystem/xfs_superblock.h"

#include <fmt/format.h>

#include "guest/reading/checksums.h"
#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

// Supported features of version 5: file types, sparse inodes, metadata UUID, big timestamps,
// nrext64, exchange-range and parent pointers. Unsupported: "needs repair".
constexpr uint32_t kKnownIncompat = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80;
constexpr uint32_t kTypes = 0x1;
constexpr uint32_t kMetadataUuid = 0x4;
constexpr uint32_t kKnownRoCompat = 0xF;
constexpr size_t kSuperChecksum = 0xE0;
// Features of version 4.
constexpr uint16_t kHasMoreFeatures = 0x2000;
constexpr uint32_t kLazyCount = 0x2;
constexpr uint32_t kOldTypes = 0x200;
// Smallest allocation group. Limits the number of groups.
constexpr uint64_t kLeastGroup = 64;                   // blocks
constexpr uint64_t kLargestDirectoryBlock = 64 << 10;  // bytes

Result<void> check_version(const ByteView& view, const Fields& it, XfsSuperblock& super) {
  const unsigned version = it.be16(0x64) & 0xF;
  super.is_v5 = version == 5;
  super.metadata_uuid = it.text(0x20, 16);
  if (version == 4) {
    const uint32_t more = (it.be16(0x64) & kHasMoreFeatures) != 0 ? it.be32(0xC8) : 0;
    super.has_exact_count = (more & kLazyCount) != 0;
    super.has_types = (more & kOldTypes) != 0;
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
  super.has_types = (incompat & kTypes) != 0;
  if ((incompat & kMetadataUuid) != 0) super.metadata_uuid = it.text(0xF8, 16);
  return {};
}

// Inodes must fill whole blocks.
bool read_inode_geometry(const Fields& it, XfsSuperblock& super) {
  super.root = it.be64(0x38);
  super.inode_size = it.be16(0x68);
  super.inode_bits = it.u8(0x7B);
  const unsigned directory_bits = it.u8(0xC0);
  super.directory_block = super.block_size << std::min(directory_bits, 16U);
  return super.inode_size >= 256 && super.inode_bits <= 8 &&
         super.inode_size << super.inode_bits == super.block_size && directory_bits <= 16 &&
         super.directory_block <= kLargestDirectoryBlock;
}

}  // namespace

uint64_t XfsSuperblock::block_of(uint64_t number) const {
  const uint64_t group = number >> group_bits;
  const uint64_t within = number & ((uint64_t{1} << group_bits) - 1);
  return group < groups && within < group_length(group) ? group * group_blocks + within : blocks;
}

Result<XfsSuperblock> XfsSuperblock::read(const ByteView& view, const Fields& head) {
  const auto impossible = [] { return doubt("its geometry is invalid"); };
  XfsSuperblock super;
  super.block_size = head.be32(0x04);
  super.blocks = head.be64(0x08);
  super.group_blocks = head.be32(0x54);
  super.groups = head.be32(0x58);
  super.sector = head.be16(0x66);
  super.free_blocks = head.be64(0x90);
  super.group_bits = head.u8(0x7C);
  if (head.u8(0x78) > 16 || super.block_size != uint64_t{1} << head.u8(0x78) ||
      super.block_size < 512 || !is_power_of_two(super.sector) || super.sector < 512 ||
      super.sector > 32768 || super.group_blocks < kLeastGroup || super.groups == 0 ||
      super.group_bits > 32 || uint64_t{1} << super.group_bits < super.group_blocks ||
      !read_inode_geometry(head, super))
    return impossible();
  if (super.blocks > view.size() / super.block_size)
    return doubt("head is larger than its partition");
  if ((super.groups - 1) * super.group_blocks >= super.blocks ||
      super.blocks > super.groups * super.group_blocks)
    return impossible();
  if (head.u8(0x7E) != 0) return doubt("mkfs has not finished");
  RETURN_IF_ERROR(check_version(view, head, super));
  const uint64_t log = head.be64(0x30);
  if (log == 0) return doubt("its log is on another device");
  super.log_blocks = head.be32(0x60);
  super.log_at = super.block_of(log);
  if (super.log_at == super.blocks) return impossible();
  const uint64_t group = super.log_at / super.group_blocks;
  if (super.log_at % super.group_blocks + super.log_blocks > super.group_length(group))
    return impossible();
  return super;
}

}  // namespace vc::guest
