// Valid-looking volumes that must not be trusted, or must not be changed.
#include <cstring>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/guest/made_volume.h"
#include "tests/guest/ntfs_log.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest::Reading;
using support::TempDirectory;

namespace {

using Volume = guest_test::MadeVolume;

constexpr uint64_t kMiB = 1 << 20;
using Bytes = std::string;

void check(const Volume& volume, Reading::Verdict verdict, const std::string& why) {
  const auto now = volume.read();
  INFO(now.why);
  CHECK(now.verdict == verdict);
  CHECK(now.free == 0);
  CHECK_THAT(now.why, Catch::Contains(why));
}

// Makes an ext4 without a checksum in its superblock, so that tests can change it.
Volume old_ext4() {
  return Volume(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum"});
}

Volume new_ntfs() {
  return Volume(64 * kMiB, {"mkntfs", "-q", "-Q", "-F"});
}

// Returns the offset of an MFT record. mkntfs makes the table in one piece.
uint64_t mft_record(const Volume& volume, unsigned number) {
  const auto boot = support::RawFile(volume.path()).read(0, 512);
  uint64_t cluster = 0;
  std::memcpy(&cluster, boot.data() + 0x30, 8);
  return cluster * 4096 + number * uint64_t{1024};
}

// Sets a flag of $Volume's information. Finds the information by its version, 3.1. It has 12 bytes,
// with the flags at 10.
void set_ntfs_dirty(const Volume& volume) {
  const uint64_t record = mft_record(volume, 3);
  const auto bytes = support::RawFile(volume.path()).read(record, 1024);
  for (size_t at = 0; at + 12 <= bytes.size(); ++at)
    if (std::memcmp(bytes.data() + at, "\0\0\0\0\0\0\0\0\x03\x01\0\0", 12) == 0)
      volume.put(record + at + 10, Bytes("\x01", 1));
}

constexpr Bytes::size_type kGuidLength = 16;
const Bytes kShadowGuid("\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52",
                        kGuidLength);

Bytes shadow_record(char type, uint64_t catalog, char volume, char storage) {
  Bytes record(512, '\0');
  record.replace(0, kGuidLength, kShadowGuid);
  record[0x14] = type;
  std::memcpy(record.data() + 0x30, &catalog, 8);
  record.replace(0x40, 16, Bytes(16, volume));
  record.replace(0x50, 16, Bytes(16, storage));
  return record;
}

Bytes shadow_catalog(char entry_type) {
  Bytes block(16 << 10, '\0');
  block.replace(0, kGuidLength, kShadowGuid);
  block[0x14] = 2;
  block[0x80] = entry_type;
  return block;
}

}  // namespace

TEST_CASE("an ext4 whose journal must be replayed is doubted, whatever its state", "[states]") {
  const Volume volume = old_ext4();
  const auto incompat = support::RawFile(volume.path()).read(1024 + 0x60, 1)[0];
  volume.put(1024 + 0x60, Bytes(1, static_cast<char>(incompat | std::byte{4})));
  check(volume, Reading::Verdict::kDoubt, "journal must be replayed");
}

TEST_CASE("ext4 that has errors, or is in use, or has other features is doubted", "[states]") {
  const Volume volume = old_ext4();
  SECTION("errors") {
    volume.put(1024 + 0x3A, Bytes("\x03", 1));
    check(volume, Reading::Verdict::kDoubt, "has errors");
  }
  SECTION("in use") {
    volume.put(1024 + 0x3A, Bytes("\x00", 1));
    check(volume, Reading::Verdict::kDoubt, "not unmounted cleanly");
  }
  SECTION("features") {
    volume.put(1024 + 0x64 + 2, Bytes("\x40", 1));
    check(volume, Reading::Verdict::kDoubt, "unknown features");
  }
  SECTION("a count") {
    volume.put(1024 + 0x0C, Bytes("\x01", 1));
    check(volume, Reading::Verdict::kDoubt, "its superblock says");
  }
  SECTION("a partition that is too small") {
    support::resize_file(volume.path(), 63 * kMiB);
    check(volume, Reading::Verdict::kDoubt, "larger than its partition");
  }
}

TEST_CASE("a wrong checksum causes a doubt", "[states]") {
  const Volume ext(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext4"});
  ext.put(1024 + 0x78, "label");
  check(ext, Reading::Verdict::kDoubt, "checksum of its superblock");
  const Volume xfs(320 * kMiB, {"mkfs.xfs", "-q", "-f"});
  xfs.put(0x6C, "label");
  check(xfs, Reading::Verdict::kDoubt, "checksum of its superblock");
  const Volume btrfs(256 * kMiB, {"mkfs.btrfs", "-q", "-f"});
  btrfs.put((64 << 10) + 0x12B, "label");
  check(btrfs, Reading::Verdict::kDoubt, "checksum of its superblock");
}

TEST_CASE("a FAT that was not shut down, or that hides BitLocker, is not read", "[states]") {
  const Volume volume(64 * kMiB, {"mkfs.fat", "-F", "32"});
  SECTION("not shut down according to the FAT") {
    volume.put(32 * 512 + 7, Bytes("\x07", 1));
    check(volume, Reading::Verdict::kDoubt, "not shut down cleanly");
  }
  SECTION("not shut down according to the boot sector") {
    volume.put(0x41, Bytes("\x01", 1));
    check(volume, Reading::Verdict::kDoubt, "not shut down cleanly");
  }
  SECTION("BitLocker To Go") {
    volume.put(0x1A8,
               Bytes("\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01", 16));
    check(volume, Reading::Verdict::kLeftAlone, "BitLocker To Go");
  }
}

TEST_CASE("FAT32 whose FATs contradict its boot sector is doubted", "[states]") {
  const Volume volume(64 * kMiB, {"mkfs.fat", "-F", "32"});
  const auto boot = support::RawFile(volume.path()).read(0, 512);
  uint32_t length = 0;
  std::memcpy(&length, boot.data() + 36, 4);
  const uint64_t fat = length * uint64_t{512};
  SECTION("the media byte") {
    volume.put(32 * 512, Bytes("\xf0", 1));
    check(volume, Reading::Verdict::kDoubt, "its FAT is damaged");
  }
  SECTION("two cleared FATs") {
    volume.put(32 * 512, Bytes(2 * fat, '\0'));
    volume.put(32 * 512 + 4, Bytes("\xff\xff\xff\x0f", 4));
    volume.put(32 * 512 + fat + 4, Bytes("\xff\xff\xff\x0f", 4));
    check(volume, Reading::Verdict::kDoubt, "root directory is broken");
  }
  SECTION("a free root directory") {
    volume.put(32 * 512 + fat + 8, Bytes(4, '\0'));
    check(volume, Reading::Verdict::kDoubt, "marks its root directory as free");
  }
  SECTION("a root directory outside of the volume") {
    volume.put(44, Bytes("\xff\xff\xff\x0f", 4));
    check(volume, Reading::Verdict::kDoubt, "outside of it");
  }
}

TEST_CASE("FAT32 with more clusters than its entries can name is doubted", "[states]") {
  const Volume volume(64 * kMiB, {"mkfs.fat", "-F", "32"});
  support::resize_file(volume.path(), uint64_t{300} << 30);
  const auto put32 = [&](uint64_t at, uint32_t value) {
    volume.put(at, Bytes(reinterpret_cast<const char*>(&value), 4));
  };
  put32(32, 300u << 21);
  put32(36, 3u << 20);
  volume.put(13, Bytes("\x01", 1));
  check(volume, Reading::Verdict::kDoubt, "too many clusters for FAT32");
}

TEST_CASE("NTFS that is dirty is doubted", "[states]") {
  const Volume volume = new_ntfs();
  set_ntfs_dirty(volume);
  check(volume, Reading::Verdict::kDoubt, "not shut down cleanly");
}

TEST_CASE("NTFS is left alone while Windows has shadow copies of it", "[states]") {
  const Volume volume = new_ntfs();
  const uint64_t catalog = 16 * kMiB;
  SECTION("on itself") {
    volume.put(0x1E00, shadow_record(1, catalog, 'a', 'a'));
    volume.put(catalog, shadow_catalog(2));
    check(volume, Reading::Verdict::kLeftAlone, "has shadow copies");
  }
  SECTION("on another volume") {
    volume.put(0x1E00, shadow_record(1, catalog, 'a', 'b'));
    volume.put(catalog, shadow_catalog(1));
    check(volume, Reading::Verdict::kLeftAlone, "on another volume");
  }
  SECTION("with a damaged catalog") {
    volume.put(0x1E00, shadow_record(1, catalog, 'a', 'a'));
    check(volume, Reading::Verdict::kDoubt, "shadow copies are damaged");
  }
}

TEST_CASE("NTFS that only keeps another volume's shadow copies, or has had some, is read",
          "[states]") {
  const Volume volume = new_ntfs();
  const uint64_t catalog = 16 * kMiB;
  volume.put(0x1E00, shadow_record(1, catalog, 'a', 'a'));
  volume.put(catalog, shadow_catalog(3));
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
  volume.put(catalog, shadow_catalog(1));
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
}

TEST_CASE("a session saved in swap keeps all disks of the guest unchanged", "[states]") {
  const Volume volume(64 * kMiB, {"mkswap", "-q"});
  volume.put(4096 - 10, Bytes("S1SUSPEND\0", 10));
  check(volume, Reading::Verdict::kSuspended, "a session is saved");
}

TEST_CASE("a volume with two formats is doubted", "[states]") {
  const Volume volume(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext4"});
  volume.put(4096 - 10, "SWAPSPACE2");
  check(volume, Reading::Verdict::kDoubt, "looks like");
}

TEST_CASE("btrfs beside a volume that was not unmounted is doubted", "[states]") {
  const Volume btrfs(256 * kMiB, {"mkfs.btrfs", "-q", "-f"});
  const Volume ext4 = old_ext4();
  const auto both = [&] { return guest_test::inspect_files({btrfs.path(), ext4.path()}); };
  CHECK(both().free_on(0).total() > 0);
  const auto incompat = support::RawFile(ext4.path()).read(1024 + 0x60, 1)[0];
  ext4.put(1024 + 0x60, Bytes(1, static_cast<char>(incompat | std::byte{4})));
  const auto found = both();
  REQUIRE(found.volumes.size() == 2);
  CHECK(found.volumes[0].verdict == Reading::Verdict::kDoubt);
  CHECK(found.volumes[0].why ==
        "/dev/sdb was not unmounted, and it is unknown whether this one was");
  CHECK(found.volumes[0].free == 0);
  CHECK(found.free_on(0).empty());
  // A damaged volume is not a reason to doubt the btrfs.
  ext4.put(1024 + 0x60, Bytes(1, static_cast<char>(incompat)));
  ext4.put(1024 + 0x3A, Bytes("\x03", 1));
  CHECK(both().free_on(0).total() > 0);
}

TEST_CASE("each kind of volume that was not unmounted makes btrfs doubtful", "[states]") {
  const Volume btrfs(256 * kMiB, {"mkfs.btrfs", "-q", "-f"});
  const auto is_kept = [&](const Volume& other) {
    return guest_test::inspect_files({other.path(), btrfs.path()}).free_on(1).empty();
  };
  SECTION("ext2") {
    const Volume ext2(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext2"});
    CHECK_FALSE(is_kept(ext2));
    ext2.put(1024 + 0x3A, Bytes("\x00", 1));
    CHECK(is_kept(ext2));
  }
  SECTION("XFS") {
    const Volume xfs(320 * kMiB, {"mkfs.xfs", "-q", "-f"});
    CHECK_FALSE(is_kept(xfs));
    // Number of operations of the first record.
    const auto super = support::RawFile(xfs.path()).read(0, 512);
    const auto be = [&](size_t at, size_t size) {
      uint64_t value = 0;
      for (size_t i = 0; i < size; ++i)
        value = value << 8 | std::to_integer<uint64_t>(super[at + i]);
      return value;
    };
    const uint64_t log = be(0x30, 8);
    const uint64_t bits = be(0x7C, 1);
    const uint64_t block = (log >> bits) * be(0x54, 4) + (log & ((uint64_t{1} << bits) - 1));
    xfs.put(block * be(4, 4) + 40, Bytes("\0\0\0\2", 4));
    CHECK(is_kept(xfs));
  }
  SECTION("FAT") {
    const Volume fat(64 * kMiB, {"mkfs.fat", "-F", "32"});
    CHECK_FALSE(is_kept(fat));
    fat.put(0x41, Bytes("\x01", 1));
    CHECK(is_kept(fat));
  }
  SECTION("exFAT") {
    const Volume exfat(64 * kMiB, {"mkfs.exfat"});
    CHECK_FALSE(is_kept(exfat));
    exfat.put(0x6A, Bytes("\x02", 1));
    CHECK(is_kept(exfat));
  }
  SECTION("NTFS") {
    const Volume ntfs = new_ntfs();
    CHECK_FALSE(is_kept(ntfs));
    set_ntfs_dirty(ntfs);
    CHECK(is_kept(ntfs));
  }
}

TEST_CASE("NTFS whose log is empty, beside a volume that was not unmounted, is doubted",
          "[states]") {
  const Volume ntfs = new_ntfs();
  const Volume ext2(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext2"});
  ext2.put(1024 + 0x3A, Bytes("\x00", 1));
  const auto find = [&] {
    return guest_test::inspect_files({ntfs.path(), ext2.path()}).volumes.front();
  };
  CHECK_THAT(find().why, Catch::Contains("/dev/sdb was not unmounted"));
  CHECK(find().free == 0);
  // Windows marks a volume while it is mounted.
  ntfs.put(guest_test::ntfs_log(ntfs.path()), guest_test::restart_page(1, true));
  CHECK(find().verdict == Reading::Verdict::kFree);
}

TEST_CASE("encrypted volumes, and members of larger volumes, are left alone", "[states]") {
  const Volume volume(64 * kMiB, {"mkswap", "-q"});
  SECTION("LUKS") {
    volume.put(0, Bytes("LUKS\xba\xbe", 6));
    check(volume, Reading::Verdict::kLeftAlone, "encrypted");
  }
  SECTION("BitLocker") {
    volume.put(3, "-FVE-FS-");
    check(volume, Reading::Verdict::kLeftAlone, "encrypted");
  }
  SECTION("RAID, at the start") {
    volume.put(4096, Bytes("\xfc\x4e\x2b\xa9", 4));
    check(volume, Reading::Verdict::kLeftAlone, "RAID");
  }
  SECTION("RAID, at the end") {
    volume.put(64 * kMiB - (64 << 10), Bytes("\xfc\x4e\x2b\xa9", 4));
    check(volume, Reading::Verdict::kLeftAlone, "RAID");
  }
}
