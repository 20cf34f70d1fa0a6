#include "guest/filesystem/fat.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/rounding.h"

namespace vc::guest {

namespace {

// A BitLocker To Go volume, whose FAT is only a disguise.
constexpr std::string_view kBitLockerToGo{
    "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01", 16};
constexpr size_t kBitLockerGuid = 0x1A8;

// All drivers derive the FAT type from the number of clusters.
constexpr uint64_t kLeastFat16 = 4085;
constexpr uint64_t kLeastFat32 = 65525;
// Larger entries are special values.
constexpr uint64_t kMostFat32 = 0x0FFFFFF5;
constexpr uint64_t kFirstCluster = 2;
constexpr uint64_t kEndOfChain = 0x0FFFFFF8;
// A directory has at most 2 MiB, and a cluster at least 512 bytes.
constexpr uint64_t kMostRootClusters = 4096;
// Bytes of one read of a FAT. A multiple of 3, so that no 12-bit entry is split.
constexpr uint64_t kPiece = 3 << 20;

struct Geometry {
  uint64_t sector;    // bytes
  uint64_t cluster;   // bytes
  uint64_t clusters;  // number of data clusters
  uint64_t data;      // start of cluster 2, bytes
  uint64_t fat;       // start of the first FAT, bytes
  uint64_t fat_size;  // bytes
  unsigned fats;
  unsigned bits;                   // per entry: 12, 16 or 32
  uint8_t media;                   // media byte, which the first entry of each FAT repeats
  uint64_t root;                   // FAT32: first cluster of the root directory
  std::optional<unsigned> active;  // nullopt: all FATs are in use
};

bool probe(const Fields& head) {
  if (head.has(3, "NTFS    ") || head.has(3, "EXFAT   ") || head.has(3, "-FVE-FS-") ||
      head.be16(510) != 0x55AA)
    return false;
  const uint16_t sector = head.le16(11);
  const unsigned fats = head.u8(16);
  return sector >= 512 && sector <= 4096 && is_power_of_two(sector) &&
         is_power_of_two(head.u8(13)) && head.le16(14) > 0 && (fats == 1 || fats == 2) &&
         (head.u8(21) == 0xF0 || head.u8(21) >= 0xF8) &&
         (head.le16(19) != 0 || head.le32(32) != 0) && (head.le16(22) != 0 || head.le32(36) != 0);
}

Result<Geometry> geometry_of(const Fields& boot, uint64_t size) {
  Geometry it{};
  it.sector = boot.le16(11);
  it.cluster = it.sector * boot.u8(13);
  it.fats = boot.u8(16);
  const bool is_fat32 = boot.le16(22) == 0;
  const uint64_t sectors = boot.le16(19) != 0 ? boot.le16(19) : boot.le32(32);
  it.fat_size = it.sector * (is_fat32 ? boot.le32(36) : boot.le16(22));
  it.fat = it.sector * boot.le16(14);
  const uint64_t root = divide_up(boot.le16(17) * uint64_t{32}, it.sector) * it.sector;
  it.data = it.fat + it.fats * it.fat_size + root;
  if (sectors > size / it.sector) return doubt("it is larger than its partition");
  if (sectors * it.sector <= it.data) return doubt("its geometry is invalid");
  it.clusters = (sectors * it.sector - it.data) / it.cluster;
  // Follows Linux and EDK2, since mkfs.fat makes FAT32 with few clusters.
  it.bits = is_fat32 ? 32 : it.clusters < kLeastFat16 ? 12 : 16;
  if (!is_fat32 && it.clusters >= kLeastFat32) return doubt("it has too many clusters for FAT16");
  if (it.clusters > kMostFat32) return doubt("it has too many clusters for FAT32");
  it.media = boot.u8(21);
  it.root = boot.le32(44);
  if (is_fat32 && (it.root < kFirstCluster || it.root - kFirstCluster >= it.clusters))
    return doubt("its root directory is outside of it");
  if ((it.clusters + kFirstCluster) * it.bits > it.fat_size * 8)
    return doubt("its FAT is too short for its clusters");
  if (is_fat32 && (boot.le16(40) & 0x80) != 0) {
    it.active = boot.le16(40) & 15;
    if (*it.active >= it.fats) return doubt("its active FAT does not exist");
  }
  return it;
}

uint32_t entry_of(const Fields& fat, uint64_t index, unsigned bits) {
  if (bits == 32) return fat.le32(index * 4) & 0x0FFFFFFF;
  if (bits == 16) return fat.le16(index * 2);
  const uint64_t at = index * 3 / 2;
  const uint32_t pair = fat.u8(at) | uint32_t{fat.u8(at + 1)} << 8;
  return (index % 2 == 0 ? pair : pair >> 4) & 0xFFF;
}

// Checks that the first entry repeats the media byte. The second entry has bits for "shut down
// cleanly" and "no errors", which must be set.
Result<void> check_start(const Fields& fat, const Geometry& it) {
  const unsigned bits = it.bits;
  if (fat.u8(0) != it.media) return doubt("its FAT is damaged");
  if (bits == 32 && (fat.le32(4) & 0x0C000000) != 0x0C000000)
    return unclean("it was not shut down cleanly, or has errors");
  if (bits == 16 && (fat.le16(2) & 0xC000) != 0xC000)
    return unclean("it was not shut down cleanly, or has errors");
  return {};
}

// Returns the free clusters of one FAT, numbered from 0.
Result<Ranges> free_in_fat(const ByteView& view, const Geometry& it, unsigned number) {
  Ranges::Builder free;
  const uint64_t begin = it.fat + number * it.fat_size;
  const uint64_t entries = it.clusters + kFirstCluster;
  const uint64_t used = divide_up(entries * it.bits, 8);
  for (uint64_t at = 0; at < used; at += kPiece) {
    ASSIGN_OR_RETURN(const Block block, view.block(begin + at, std::min(kPiece, used - at)));
    const Fields fat = block.fields();
    if (at == 0) RETURN_IF_ERROR(check_start(fat, it));
    const uint64_t first = at * 8 / it.bits;
    const uint64_t count = std::min(kPiece * 8 / it.bits, entries - first);
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t cluster = first + i;
      if (cluster >= kFirstCluster && entry_of(fat, i, it.bits) == 0)
        free.add(cluster - kFirstCluster, cluster - kFirstCluster + 1);
    }
  }
  return free.take();
}

// Returns the clusters of the root directory of FAT32, numbered from 0.
Result<Ranges> root_clusters(const ByteView& view, const Geometry& it) {
  Ranges::Builder clusters;
  uint64_t count = 0;
  const uint64_t begin = it.fat + it.active.value_or(0) * it.fat_size;
  for (uint64_t at = it.root; at < kEndOfChain;) {
    if (at < kFirstCluster || at - kFirstCluster >= it.clusters || ++count > kMostRootClusters)
      return doubt("the chain of its root directory is broken");
    clusters.add(at - kFirstCluster, at - kFirstCluster + 1);
    ASSIGN_OR_RETURN(const Block entry, view.block(begin + at * 4, 4));
    at = entry_of(entry.fields(), 0, 32);
  }
  return clusters.take();
}

Result<Reading> read(const ByteView& view) {
  ASSIGN_OR_RETURN(const Block block, view.block(0, 512));
  const Fields boot = block.fields();
  if (boot.has(kBitLockerGuid, kBitLockerToGo)) return left_alone("BitLocker To Go encrypts it");
  ASSIGN_OR_RETURN(const Geometry it, geometry_of(boot, view.size()));
  const bool is_fat32 = it.bits == 32;
  if ((boot.u8(is_fat32 ? 0x41 : 0x25) & 3) != 0)
    return unclean("it was not shut down cleanly, or has errors");
  Ranges root;
  if (is_fat32) {
    ASSIGN_OR_RETURN(root, root_clusters(view, it));
  }
  Ranges free = one_range(0, it.clusters);
  for (unsigned number = 0; number < it.fats; ++number) {
    if (it.active && *it.active != number) continue;
    ASSIGN_OR_RETURN(const Ranges in_this, free_in_fat(view, it, number));
    if (!root.within(in_this).empty()) return doubt("its FAT marks its root directory as free");
    // A cluster is free only if all FATs mark it as free.
    free = free.within(in_this);
  }
  Reading reading;
  reading.free = free.scaled(it.cluster, it.data);
  const size_t serial = is_fat32 ? 0x43 : 0x27;
  reading.uuid = fmt::format("{:04X}-{:04X}", boot.le16(serial + 2), boot.le16(serial));
  reading.label = padded_text(boot.part(serial + 4, 11));
  if (reading.label == "NO NAME") reading.label.clear();
  return reading;
}

}  // namespace

const Format kFat{"vfat", probe, read};

}  // namespace vc::guest
