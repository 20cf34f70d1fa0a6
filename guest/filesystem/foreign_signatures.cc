#include "guest/filesystem/foreign_signatures.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/rounding.h"
#include "guest/reading/block.h"
#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

using namespace std::string_view_literals;

constexpr uint64_t kKiB = 1 << 10;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSector = 512;
constexpr uint64_t kZfsLabel = 256 * kKiB;
// How much is read at the end: RAID superblocks are the farthest from it.
constexpr uint64_t kTail = 132 * kKiB;

struct Signature {
  ForeignSignature owner;
  uint64_t at;  // offset from the start or from the end, bytes
  std::string_view bytes;
};

constexpr ForeignSignature kLuks{"crypto_LUKS", "it is encrypted"};
constexpr ForeignSignature kStorageSpaces{"storage_spaces_member",
                                          "Windows's Storage Spaces use it"};
constexpr ForeignSignature kRaid{"linux_raid_member", "it is a part of a RAID"};
constexpr ForeignSignature kImsm{"isw_raid_member", "it is a part of a RAID"};
constexpr ForeignSignature kDdf{"ddf_raid_member", "it is a part of a RAID"};
constexpr ForeignSignature kZfs{"zfs_member", "it is a part of a ZFS pool"};
constexpr ForeignSignature kDrbd{"drbd", "DRBD uses it"};
constexpr ForeignSignature kStratis{"stratis", "it is a part of a Stratis pool"};
constexpr ForeignSignature kOcfs{"ocfs2", "a cluster of hosts uses it"};
constexpr ForeignSignature kBsd{"bsd", "it has a BSD disklabel"};
constexpr ForeignSignature kSun{"sun", "it has a Sun disklabel"};
constexpr ForeignSignature kUfs{"ufs", ""};
constexpr ForeignSignature kF2fs{"f2fs", ""};
constexpr ForeignSignature kReiser{"reiserfs", ""};
constexpr ForeignSignature kHfs{"hfsplus", ""};
constexpr ForeignSignature kNilfs{"nilfs2", ""};

// Places and values as documented by libblkid and by the headers of the formats.
constexpr std::array kAtStart{
    Signature{kLuks, 0, "LUKS\xba\xbe"sv},
    // The second header of LUKS2, at the places where cryptsetup looks for it.
    Signature{kLuks, 16 * kKiB, "SKUL\xba\xbe"sv},
    Signature{kLuks, 32 * kKiB, "SKUL\xba\xbe"sv},
    Signature{kLuks, 64 * kKiB, "SKUL\xba\xbe"sv},
    Signature{kLuks, 128 * kKiB, "SKUL\xba\xbe"sv},
    Signature{kLuks, 256 * kKiB, "SKUL\xba\xbe"sv},
    Signature{{"BitLocker", "it is encrypted"}, 3, "-FVE-FS-"sv},
    Signature{{"ReFS", "ReFS is not supported"}, 3, "ReFS\0"sv},
    Signature{kStorageSpaces, 0, "SPACEDB "sv},
    Signature{kStorageSpaces, 4 * kKiB, "SPACEDB "sv},
    Signature{{"bcache", "it is a part of a bcache"},
              4 * kKiB + 24,
              "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"sv},
    Signature{{"bcachefs", "it is a part of a bcachefs"},
              4 * kKiB + 24,
              "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"sv},
    Signature{kRaid, 0, "\xfc\x4e\x2b\xa9"sv},
    Signature{kRaid, 4 * kKiB, "\xfc\x4e\x2b\xa9"sv},
    Signature{kStratis, 1 * kSector + 4, "!Stra0tis"sv},
    Signature{kStratis, 9 * kSector + 4, "!Stra0tis"sv},
    Signature{{"VMFS_volume_member", "VMware's VMFS uses it"}, kMiB, "\x0d\xd0\x01\xc0"sv},
    Signature{{"VMFS", "VMware's VMFS uses it"}, 2 * kMiB, "\x5e\xf1\xab\x2f"sv},
    Signature{{"vdo", "it is a part of a VDO volume"}, 0, "dmvdo001"sv},
    Signature{{"DM_snapshot_cow", "it stores a snapshot"}, 0, "SnAp\x01\0\0\0"sv},
    Signature{{"DM_integrity", "dm-integrity uses it"}, 0, "integrt\0"sv},
    Signature{{"DM_verity_hash", "dm-verity uses it"}, 0, "verity\0\0"sv},
    Signature{{"ceph_bluestore", "Ceph uses it"}, 0, "bluestore block device"sv},
    Signature{{"oracleasm", "Oracle's ASM uses it"}, 32, "ORCLDISK"sv},
    Signature{kOcfs, 1 * kKiB, "OCFSV2"sv},
    Signature{kOcfs, 2 * kKiB, "OCFSV2"sv},
    Signature{kOcfs, 4 * kKiB, "OCFSV2"sv},
    Signature{kOcfs, 8 * kKiB, "OCFSV2"sv},
    Signature{{"gfs2", "a cluster of hosts uses it"}, 64 * kKiB, "\x01\x16\x19\x70"sv},
    Signature{{"solaris", "it has a Solaris disklabel"}, kSector + 12, "\xee\xde\x0d\x60"sv},
    Signature{{"sgi", "it has an SGI disklabel"}, 0, "\x0b\xe5\xa9\x41"sv},
    Signature{kF2fs, 1 * kKiB, "\x10\x20\xf5\xf2"sv},
    Signature{kF2fs, 5 * kKiB, "\x10\x20\xf5\xf2"sv},
    Signature{{"jfs", ""}, 32 * kKiB, "JFS1"sv},
    Signature{kReiser, 64 * kKiB + 52, "ReIsEr"sv},
    Signature{kReiser, 8 * kKiB + 52, "ReIsEr"sv},
    Signature{{"reiser4", ""}, 64 * kKiB, "ReIsEr4"sv},
    Signature{{"erofs", ""}, 1 * kKiB, "\xe2\xe1\xf5\xe0"sv},
    Signature{{"squashfs", ""}, 0, "hsqs"sv},
    Signature{{"apfs", ""}, 32, "NXSB"sv},
    Signature{kHfs, 1 * kKiB, "H+\0\x04"sv},
    Signature{kHfs, 1 * kKiB, "HX\0\x05"sv},
};

constexpr std::array kAtEnd{
    Signature{kImsm, 2 * kSector, "Intel Raid ISM Cfg Sig. "sv},
    Signature{kImsm, 2 * 4 * kKiB, "Intel Raid ISM Cfg Sig. "sv},
    Signature{kDdf, 1 * kSector, "\xde\x11\xde\x11"sv},
    Signature{kDdf, 257 * kSector, "\xde\x11\xde\x11"sv},
    Signature{{"lsi_mega_raid_member", "it is a part of a RAID"}, kSector, "$XIDE$"sv},
    Signature{{"nvidia_raid_member", "it is a part of a RAID"}, 2 * kSector, "NVIDIA"sv},
};

// The parts of a device that can hold signatures. Those of ZFS are read by has_zfs().
class Ends {
 public:
  static Result<Ends> read(const ByteView& device) {
    Ends ends(device.size());
    RETURN_IF_ERROR(ends.add(device, 0, kHeadSize));
    for (const uint64_t at : {128 * kKiB, 256 * kKiB, kMiB, 2 * kMiB})
      RETURN_IF_ERROR(ends.add(device, at, 4 * kKiB));
    RETURN_IF_ERROR(ends.add(device, ends.size_ - std::min(ends.size_, kTail), kTail));
    return ends;
  }

  uint64_t size() const { return size_; }
  // Returns the bytes from offset `at` on. Empty if they were not read.
  Fields from(uint64_t at) const {
    Fields longest;
    for (const auto& [begin, block] : parts_) {
      const Fields it = at < begin ? Fields() : block.fields().part(at - begin);
      if (it.size() > longest.size()) longest = it;
    }
    return longest;
  }
  // Same for an offset that is counted back from the end.
  Fields from_end(uint64_t at) const { return at > size_ ? Fields() : from(size_ - at); }

 private:
  explicit Ends(uint64_t size) : size_(size) {}

  Result<void> add(const ByteView& device, uint64_t at, uint64_t length) {
    if (at >= size_) return {};
    ASSIGN_OR_RETURN(Block block, device.block(at, std::min(length, size_ - at)));
    parts_.emplace_back(at, std::move(block));
    return {};
  }

  const uint64_t size_;
  std::vector<std::pair<uint64_t, Block>> parts_;
};

// Finds superblocks of versions 0.90 and 1.0 (linux/raid/md_p.h). A superblock of version 1 tells
// its own position, since the end of a disk may belong to the last partition.
bool ends_with_raid(const Ends& ends) {
  constexpr uint64_t kUnit = 64 << 10;
  constexpr uint32_t kMagic = 0xA92B4EFC;
  if (ends.size() < 2 * kUnit) return false;
  const uint64_t at_v1 = (ends.size() / kSector - 16) / 8 * 8 * kSector;
  for (const uint64_t at : {round_down(ends.size(), kUnit) - kUnit, at_v1}) {
    const Fields it = ends.from(at);
    if (it.be32(0) == kMagic) return true;
    if (it.le32(0) == kMagic && (it.le32(4) != 1 || it.le64(144) == at / kSector)) return true;
  }
  return false;
}

// Checks the labels L0 to L3 for an uberblock, or for the names and values that describe the pool.
Result<bool> has_zfs(const ByteView& device) {
  constexpr uint64_t kUberblock = 0x00BAB10C;
  constexpr uint64_t kNames = 16 * kKiB;
  constexpr uint64_t kUberblocks = 128 * kKiB;
  const uint64_t end = round_down(device.size(), kZfsLabel);
  if (end < 2 * kZfsLabel) return false;
  for (const uint64_t at : {uint64_t{0}, kZfsLabel, end - 2 * kZfsLabel, end - kZfsLabel}) {
    ASSIGN_OR_RETURN(const Block names, device.block(at + kNames, kUberblocks - kNames));
    if (names.fields().text(0, names.bytes().size()).find("pool_guid") != std::string_view::npos)
      return true;
    ASSIGN_OR_RETURN(const Block ring, device.block(at + kUberblocks, kZfsLabel - kUberblocks));
    for (uint64_t i = 0; i < ring.bytes().size(); i += kKiB)
      if (ring.fields().le64(i) == kUberblock || ring.fields().be64(i) == kUberblock) return true;
  }
  return false;
}

bool has_drbd(const Ends& ends) {
  const Fields it =
      ends.from(round_down(ends.size(), 4096) - std::min<uint64_t>(ends.size(), 4096));
  const uint32_t magic = it.be32(60);
  return magic == 0x83740267 || (magic >= 0x8374026A && magic <= 0x8374026D);
}

bool has_ufs(const Ends& ends) {
  constexpr std::array<uint32_t, 7> kMagics{0x00011954, 0x19540119, 0x19960408, 0x00095014,
                                            0x00612195, 0x00195612, 0x05231994};
  for (const uint64_t at : {8 * kKiB, 64 * kKiB, 256 * kKiB}) {
    const Fields it = ends.from(at + 1372);
    for (const uint32_t magic : kMagics)
      if (it.le32(0) == magic || it.be32(0) == magic) return true;
  }
  return false;
}

// Checks more than the magic, which is too short: an ext superblock may be at the same place.
bool has_nilfs(const Ends& ends) {
  const auto is_superblock = [](const Fields& it) {
    return it.le32(0) == 2 && it.le16(6) == 0x3434;
  };
  const uint64_t second = round_down(ends.size(), 4096);
  return is_superblock(ends.from(kKiB)) ||
         (second >= 4096 && is_superblock(ends.from(second - 4096)));
}

// Finds descriptors of ISO 9660 and UDF, from sector 16 on. The sectors have 2048 bytes.
bool has_optical(const Ends& ends) {
  for (uint64_t at = 32 * kKiB; at < 64 * kKiB; at += 2 * kKiB)
    for (const std::string_view id : {"CD001"sv, "BEA01"sv, "NSR02"sv, "NSR03"sv})
      if (ends.from(at).has(1, id)) return true;
  return false;
}

bool has_bsd_label(const Ends& ends) {
  constexpr uint32_t kMagic = 0x82564557;
  for (const uint64_t at : {uint64_t{0}, uint64_t{64}, kSector})
    if (ends.from(at).le32(0) == kMagic && ends.from(at).le32(132) == kMagic) return true;
  return false;
}

bool has_sun_label(const Ends& ends) {
  const Fields it = ends.from(0);
  if (it.be16(508) != 0xDABE) return false;
  uint16_t sum = 0;
  for (size_t at = 0; at < kSector; at += 2) sum = static_cast<uint16_t>(sum ^ it.be16(at));
  return sum == 0;
}

struct Check {
  ForeignSignature owner;
  bool (*has)(const Ends& ends);
};
constexpr std::array kChecks{
    Check{kRaid, ends_with_raid},
    Check{kDrbd, has_drbd},
    Check{kUfs, has_ufs},
    Check{kNilfs, has_nilfs},
    Check{{"udf or iso9660", ""}, has_optical},
    Check{kBsd, has_bsd_label},
    Check{kSun, has_sun_label},
};

}  // namespace

Result<std::vector<ForeignSignature>> foreign_signatures(const ByteView& device) {
  ASSIGN_OR_RETURN(const Ends ends, Ends::read(device));
  std::vector<ForeignSignature> found;
  for (const Signature& it : kAtStart)
    if (ends.from(it.at).has(0, it.bytes)) found.push_back(it.owner);
  for (const Signature& it : kAtEnd)
    if (ends.from_end(it.at).has(0, it.bytes)) found.push_back(it.owner);
  for (const Check& it : kChecks)
    if (it.has(ends)) found.push_back(it.owner);
  ASSIGN_OR_RETURN(const bool is_zfs, has_zfs(device));
  if (is_zfs) found.push_back(kZfs);
  return found;
}

}  // namespace vc::guest
