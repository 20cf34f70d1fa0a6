// Overwrites all free space, and checks that every file is unchanged.
#include <fmt/format.h>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/guest/lived_in_volume.h"

using namespace vc;

using guest::Reading;
using guest_test::Kind;
using guest_test::LivedInVolume;
using support::Random;

namespace {

constexpr uint64_t kMiB = 1 << 20;

guest::Volume volume_of(const std::string& path) {
  const auto inspection = guest_test::inspect_files({path});
  for (const std::string& doubt : inspection.doubts) FAIL(doubt);
  REQUIRE(inspection.volumes.size() == 1);
  return inspection.volumes.front();
}

void tell_truth(const Kind& kind) {
  if (const std::string why = guest_test::why_no_volume(kind); !why.empty()) {
    WARN(kind.name << ": not tried: " << why);
    return;
  }
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(1); ++i) {
    INFO(kind.name << ", VIRT_COMPACT_SEED=" << seed + i);
    Random random(seed + i);
    LivedInVolume lived_in(kind, random);
    CHECK(lived_in.files() > 5);
    const auto volume = volume_of(lived_in.path());
    INFO(volume.type << ": " << volume.why);
    REQUIRE(volume.verdict == Reading::Verdict::kFree);
    REQUIRE(volume.free > kind.size / 20);
    CHECK(volume.free < kind.size);
    const std::string copy = lived_in.copy_with_garbage(volume.on_disks.front());
    CHECK(lived_in.complaint(copy) == "");
    CHECK(lived_in.complaint_after_use(copy) == "");
    // A second inspection finds the same free space.
    CHECK(volume_of(lived_in.path()).on_disks == volume.on_disks);
  }
}

// Checks that a copy of a mounted filesystem is doubted.
void doubt_mounted(const Kind& kind) {
  if (!guest_test::why_no_volume(kind).empty()) return;
  Random random(support::base_seed());
  LivedInVolume lived_in(kind, random);
  const auto volume = volume_of(lived_in.copy_while_mounted(random));
  INFO(kind.name << ": " << volume.why);
  CHECK(volume.verdict == Reading::Verdict::kDoubt);
  CHECK(volume.free == 0);
  CHECK_FALSE(volume.why.empty());
}

Kind ext(const std::string& name, const std::vector<std::string>& options) {
  Kind kind{name, 200 * kMiB, {"mke2fs", "-q", "-F"}, {"e2fsck", "-f", "-n"}, "ext4"};
  kind.make.insert(kind.make.end(), options.begin(), options.end());
  return kind;
}

Kind xfs(const std::string& name, const std::vector<std::string>& options) {
  Kind kind{name,  320 * kMiB, {"mkfs.xfs", "-q", "-f"}, {"xfs_repair", "-n", "-f"},
            "xfs", "nouuid"};
  kind.make.insert(kind.make.end(), options.begin(), options.end());
  return kind;
}

Kind fat(const std::string& name, uint64_t size, const std::vector<std::string>& options) {
  Kind kind{name, size, {"mkfs.fat"}, {"fsck.fat", "-n"}, ""};
  kind.make.insert(kind.make.end(), options.begin(), options.end());
  return kind;
}

Kind ntfs(const std::string& name, const std::vector<std::string>& options) {
  Kind kind{name, 160 * kMiB, {"mkntfs", "-q", "-Q", "-F"}, {"ntfsfix", "-n"}, "ntfs"};
  kind.make.insert(kind.make.end(), options.begin(), options.end());
  return kind;
}

Kind btrfs(const std::string& name, const std::vector<std::string>& options) {
  Kind kind{
      name, 256 * kMiB, {"mkfs.btrfs", "-q", "-f"}, {"btrfs", "check", "--readonly"}, "btrfs"};
  kind.make.insert(kind.make.end(), options.begin(), options.end());
  return kind;
}

}  // namespace

TEST_CASE("the free space of ext2, ext3 and ext4 can be overwritten", "[truth][ext]") {
  tell_truth(ext("ext4", {"-t", "ext4"}));
  tell_truth(ext("ext4 with blocks of 1 KiB", {"-t", "ext4", "-b", "1024"}));
  tell_truth(ext("ext4 with clusters", {"-t", "ext4", "-O", "bigalloc", "-C", "65536"}));
  tell_truth(ext("ext4 with clusters on blocks of 1 KiB",
                 {"-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"}));
  tell_truth(ext("ext4 with meta_bg", {"-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"}));
  tell_truth(ext("ext4 with uninit_bg", {"-t", "ext4", "-O", "^metadata_csum,uninit_bg"}));
  tell_truth(ext("ext4 with sparse_super2", {"-t", "ext4", "-O", "sparse_super2"}));
  tell_truth(ext("ext4 without flex_bg", {"-t", "ext4", "-O", "^flex_bg,^64bit"}));
  tell_truth(ext("ext3", {"-t", "ext3"}));
  tell_truth(ext("ext2", {"-t", "ext2"}));
}

TEST_CASE("the free space of XFS can be overwritten", "[truth][xfs]") {
  tell_truth(xfs("xfs", {}));
  tell_truth(xfs("xfs without reflinks", {"-m", "reflink=0,finobt=0"}));
  tell_truth(xfs("xfs with a reverse map", {"-m", "rmapbt=1"}));
  tell_truth(xfs("xfs with blocks of 1 KiB", {"-b", "size=1024"}));
  tell_truth(xfs("xfs with a striped log", {"-l", "su=256k"}));
}

TEST_CASE("the free space of FAT can be overwritten", "[truth][fat]") {
  tell_truth(fat("FAT12", 8 * kMiB, {"-F", "12"}));
  tell_truth(fat("FAT16", 100 * kMiB, {"-F", "16"}));
  tell_truth(fat("FAT32", 100 * kMiB, {"-F", "32"}));
  tell_truth(fat("FAT32 with one FAT", 100 * kMiB, {"-F", "32", "-f", "1", "-R", "39"}));
  tell_truth(fat("FAT32 with sectors of 4 KiB", 300 * kMiB, {"-F", "32", "-S", "4096"}));
}

TEST_CASE("the free space of exFAT can be overwritten", "[truth][exfat]") {
  tell_truth({"exFAT", 160 * kMiB, {"mkfs.exfat"}, {"fsck.exfat", "-n"}, "exfat"});
}

TEST_CASE("the free space of NTFS can be overwritten", "[truth][ntfs]") {
  tell_truth(ntfs("NTFS", {}));
  tell_truth(ntfs("NTFS with clusters of 512 bytes", {"-c", "512"}));
  tell_truth(ntfs("NTFS with clusters of 64 KiB", {"-c", "65536"}));
}

TEST_CASE("the free space of btrfs can be overwritten", "[truth][btrfs]") {
  tell_truth(btrfs("btrfs", {}));
  tell_truth(btrfs("btrfs with one copy and xxhash", {"-m", "single", "--csum", "xxhash"}));
  tell_truth(btrfs("btrfs with mixed groups", {"--mixed"}));
}

TEST_CASE("a filesystem that is in use is not trusted", "[ext][xfs]") {
  doubt_mounted(ext("ext4", {"-t", "ext4"}));
  doubt_mounted(ext("ext2", {"-t", "ext2"}));
  doubt_mounted(xfs("xfs", {}));
}
