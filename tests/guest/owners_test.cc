// A known signature beside one of another owner: the owner is unknown, so nothing is free.
#include <fmt/format.h>

#include <cstring>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest::Reading;
using support::TempDirectory;

namespace {

using namespace std::string_literals;

constexpr uint64_t kKiB = 1 << 10;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSize = 64 * kMiB;
constexpr uint64_t kBegin = kMiB;  // of the first partition
constexpr uint64_t kPartition = 32 * kMiB;

void put(const std::string& path, uint64_t at, const std::string& bytes) {
  support::patch_file(path, at, std::as_bytes(std::span(bytes)));
}

void make_file(const std::string& path, uint64_t size) {
  support::write_file(path, std::string());
  support::resize_file(path, size);
}

std::string swap_file(const TempDirectory& folder, uint64_t size = kSize) {
  std::string path = folder / "swap";
  make_file(path, size);
  support::run_ok({"mkswap", "-q", path});
  return path;
}

// Makes a disk with one partition, which holds swap.
std::string disk_of(const TempDirectory& folder, const std::string& label,
                    const std::string& type) {
  std::string path = folder / "disk";
  make_file(path, kSize);
  support::RunOptions how;
  how.input =
      fmt::format("label: {}\nstart=2048, size={}, type={}\n", label, kPartition / 512, type);
  support::run_ok({"sfdisk", "-q", path}, how);
  support::patch_file(path, kBegin,
                      support::RawFile(swap_file(folder, kPartition)).read(0, 64 * kKiB));
  return path;
}

uint64_t free_of(const std::string& path) {
  return guest_test::inspect_files({path}).free_on(0).total();
}

// Checks the verdict on the only volume.
void check(const std::string& path, Reading::Verdict verdict, const std::string& why) {
  const auto inspection = guest_test::inspect_files({path});
  REQUIRE(inspection.volumes.size() == 1);
  INFO(inspection.volumes.front().why);
  CHECK(inspection.volumes.front().verdict == verdict);
  CHECK_THAT(inspection.volumes.front().why, Catch::Contains(why));
  CHECK(inspection.free_on(0).empty());
}

std::string at_offset(const std::string& bytes, size_t length, size_t at) {
  std::string all(length, '\0');
  return all.replace(at, bytes.size(), bytes);
}

struct Mark {
  const char* name;
  uint64_t at;
  std::string bytes;
  Reading::Verdict verdict = Reading::Verdict::kLeftAlone;
};

std::vector<Mark> marks() {
  constexpr auto kDoubt = Reading::Verdict::kDoubt;
  const std::string ufs = "\x19\x01\x54\x19"s;
  return {
      {"LUKS2's second header", 16 * kKiB, "SKUL\xba\xbe"},
      {"bcache", 4 * kKiB + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
      {"bcachefs", 4 * kKiB + 24,
       "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
      {"ZFS, first label", 128 * kKiB, "\x0c\xb1\xba\0\0\0\0\0"s},
      {"ZFS, second label", 384 * kKiB + kKiB, "\x0c\xb1\xba\0\0\0\0\0"s},
      {"ZFS, third label, big-endian", kSize - 384 * kKiB, "\0\0\0\0\0\xba\xb1\x0c"s},
      {"ZFS, fourth label", kSize - 128 * kKiB, "\x0c\xb1\xba\0\0\0\0\0"s},
      {"ZFS, the pool's description", 20 * kKiB, "pool_guid"},
      {"VMFS volume", kMiB, "\x0d\xd0\x01\xc0"},
      {"VMFS", 2 * kMiB, "\x5e\xf1\xab\x2f"},
      {"DRBD 8", kSize - 4096 + 60, "\x83\x74\x02\x6b"},
      {"DRBD 9", kSize - 4096 + 60, "\x83\x74\x02\x6d"},
      {"mdadm 0.90", kSize - 64 * kKiB, "\xfc\x4e\x2b\xa9"},
      {"mdadm 0.90, big-endian", kSize - 64 * kKiB, "\xa9\x2b\x4e\xfc"},
      {"IMSM", kSize - 1024, "Intel Raid ISM Cfg Sig. 1.3.00"},
      {"DDF", kSize - 512, "\xde\x11\xde\x11"},
      {"Stratis", 512 + 4, "!Stra0tis\x86\xff\x02"},
      {"OCFS2", 2 * kKiB, "OCFSV2"},
      {"GFS2", 64 * kKiB, "\x01\x16\x19\x70"},
      {"BSD label", 512, at_offset("\x57\x45\x56\x82", 136, 0).replace(132, 4, "\x57\x45\x56\x82")},
      {"Sun label", 508, "\xda\xbe\xda\xbe"},
      {"Solaris label", 512 + 12, "\xee\xde\x0d\x60"},
      {"UFS1", 8 * kKiB + 1372, "\x54\x19\x01\0"s, kDoubt},
      {"UFS2", 64 * kKiB + 1372, ufs, kDoubt},
      {"f2fs", 1024 + 4 * kKiB, "\x10\x20\xf5\xf2", kDoubt},
      {"JFS", 32 * kKiB, "JFS1", kDoubt},
      {"reiserfs", 64 * kKiB + 52, "ReIsEr2Fs", kDoubt},
      {"ISO 9660", 32 * kKiB + 1, "CD001", kDoubt},
      {"UDF", 34 * kKiB + 1, "NSR03", kDoubt},
      {"NILFS, at the end", kSize - 4096, "\x02\0\0\0\0\0\x34\x34"s, kDoubt},
  };
}

}  // namespace

TEST_CASE("swap beside a signature of another owner is not free", "[owners]") {
  for (const Mark& mark : marks()) {
    INFO(mark.name);
    const TempDirectory folder;
    const std::string path = swap_file(folder);
    CHECK(free_of(path) == kSize - 64 * kKiB);
    put(path, mark.at, mark.bytes);
    check(path, mark.verdict, "");
  }
}

TEST_CASE("a RAID superblock for another offset is ignored", "[owners]") {
  const TempDirectory folder;
  const std::string path = swap_file(folder);
  const uint64_t at = kSize - 8 * kKiB;
  put(path, at, "\xfc\x4e\x2b\xa9\x01\0\0\0"s);
  CHECK(free_of(path) == kSize - 64 * kKiB);
  const uint64_t sector = at / 512;
  put(path, at + 144, std::string(reinterpret_cast<const char*>(&sector), 8));
  check(path, Reading::Verdict::kLeftAlone, "RAID");
}

TEST_CASE("a partition with a partition table of its own is doubted", "[owners]") {
  const TempDirectory folder;
  const std::string path = disk_of(folder, "gpt", "L");
  CHECK(free_of(path) == kPartition - 64 * kKiB);
  const std::string inner = folder / "inner";
  make_file(inner, kPartition);
  support::RunOptions how;
  SECTION("MBR") {
    how.input = "label: dos\nstart=2048, size=8192, type=83\n";
    support::run_ok({"sfdisk", "-q", inner}, how);
    support::patch_file(path, kBegin, support::RawFile(inner).read(0, 512));
  }
  SECTION("GPT") {
    put(path, kBegin + 512, "EFI PART");
  }
  SECTION("GPT, sectors of 4096 bytes") {
    put(path, kBegin + 4096, "EFI PART");
  }
  check(path, Reading::Verdict::kDoubt, "partition table of its own");
}

TEST_CASE("the partitions of a disk with another owner are not read", "[owners]") {
  const TempDirectory folder;
  const std::string path = disk_of(folder, "dos", "82");
  CHECK(free_of(path) == kPartition - 64 * kKiB);
  SECTION("RAID, at the start") {
    put(path, 4096, "\xfc\x4e\x2b\xa9");
    check(path, Reading::Verdict::kLeftAlone, "RAID");
  }
  SECTION("RAID, at the end") {
    put(path, kSize - 1024, "Intel Raid ISM Cfg Sig. 1.3.00");
    check(path, Reading::Verdict::kLeftAlone, "RAID");
  }
  SECTION("swap") {
    put(path, 4096 - 10, "SWAPSPACE2");
    check(path, Reading::Verdict::kDoubt, "partition table, and looks like swap");
  }
  SECTION("a saved session") {
    put(path, 4096 - 10, "S1SUSPEND\0"s);
    check(path, Reading::Verdict::kSuspended, "a session is saved");
    CHECK(guest_test::inspect_files({path}).suspended() != nullptr);
  }
}

TEST_CASE("a session saved on a whole disk counts despite a damaged partition table", "[owners]") {
  const TempDirectory folder;
  const std::string path = disk_of(folder, "gpt", "L");
  put(path, 512 + 72, "x");
  CHECK(guest_test::inspect_files({path}).suspended() == nullptr);
  put(path, 4096 - 10, "S1SUSPEND\0"s);
  check(path, Reading::Verdict::kSuspended, "a session is saved");
}

TEST_CASE("a partition with the type of another owner is doubted", "[owners]") {
  for (const char* const type : {"fd", "a5", "bf", "fb"}) {
    INFO(type);
    const TempDirectory folder;
    check(disk_of(folder, "dos", type), Reading::Verdict::kDoubt, "its type is");
  }
  for (const char* const type :
       {"A19D880F-05FC-4D3B-A006-743F0F84911E", "6A898CC3-1DD2-11B2-99A6-080020736631",
        "516E7CBA-6ECF-11D6-8FF8-00022D09712B", "AA31E02A-400F-11DB-9590-000C2911D1B8",
        "CA7D7CCB-63ED-4C53-861C-1742536059CC"}) {
    INFO(type);
    const TempDirectory folder;
    check(disk_of(folder, "gpt", type), Reading::Verdict::kDoubt, "its type is");
  }
}

TEST_CASE("swap space is free up to the end that its header states", "[owners]") {
  const TempDirectory folder;
  const std::string path = folder / "swap";
  make_file(path, kSize);
  support::run_ok({"mkswap", "-q", path, std::to_string(16 * kKiB)});
  CHECK(free_of(path) == 16 * kMiB - 64 * kKiB);
}

TEST_CASE("a swap signature without its header is doubted", "[owners]") {
  const TempDirectory folder;
  const std::string path = swap_file(folder);
  SECTION("version") {
    put(path, 1024, "\x07"s);
    check(path, Reading::Verdict::kDoubt, "left over");
  }
  SECTION("version 0") {
    put(path, 4096 - 10, "SWAP-SPACE");
    check(path, Reading::Verdict::kDoubt, "version 1");
  }
  SECTION("pages") {
    put(path, 1028, "\xff\xff\xff\xff");
    check(path, Reading::Verdict::kDoubt, "larger than its partition");
  }
  SECTION("bad pages") {
    put(path, 1032, "\xff\x7f");
    check(path, Reading::Verdict::kDoubt, "left over");
  }
  SECTION("padding") {
    put(path, 1535, "x");
    check(path, Reading::Verdict::kDoubt, "left over");
  }
}

TEST_CASE("a saved session takes precedence over all other formats", "[owners]") {
  const TempDirectory folder;
  const std::string path = swap_file(folder);
  put(path, 4096 - 10, "S1SUSPEND\0"s);
  put(path, 0, "LUKS\xba\xbe");
  put(path, kSize - 512, "\xde\x11\xde\x11");
  check(path, Reading::Verdict::kSuspended, "a session is saved");
}
