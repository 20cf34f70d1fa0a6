// A volume whose map of free blocks calls its own metadata free.
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "tests/catch_text.h"
#include "tests/guest/made_volume.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest::Reading;
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;

class Volume : public guest_test::MadeVolume {
 public:
  using MadeVolume::MadeVolume;

  uint64_t le(uint64_t at, unsigned size) const {
    uint64_t value = 0;
    std::memcpy(&value, bytes(at, size).data(), size);
    return value;
  }
  uint64_t be(uint64_t at, unsigned size) const {
    uint64_t value = 0;
    for (const char byte : bytes(at, size)) value = value << 8 | static_cast<uint8_t>(byte);
    return value;
  }
  void put_le(uint64_t at, uint64_t value, unsigned size) const {
    put(at, std::string(reinterpret_cast<const char*>(&value), size));
  }
  void put_be(uint64_t at, uint64_t value, unsigned size) const {
    std::string text;
    for (unsigned i = size; i-- > 0;) text.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
    put(at, text);
  }
  // Flips a bit of a bitmap at `at`.
  void flip(uint64_t at, uint64_t bit) const {
    put_le(at + bit / 8, le(at + bit / 8, 1) ^ (1U << bit % 8), 1);
  }
};

// The first cluster of an attribute of an MFT record that mkntfs has made; nothing: it has none, or
// it is in the record.
std::optional<uint64_t> ntfs_cluster(const Volume& volume, unsigned number, uint32_t type) {
  const uint64_t record = volume.le(0x30, 8) * 4096 + number * uint64_t{1024};
  for (uint64_t at = record + volume.le(record + 0x14, 2);;) {
    const uint64_t here = volume.le(at, 4);
    if (here == 0xFFFFFFFF) return std::nullopt;
    if (here == type && volume.le(at + 8, 1) == 1) {
      const uint64_t runs = at + volume.le(at + 0x20, 2);
      const auto sizes = static_cast<unsigned>(volume.le(runs, 1));
      return volume.le(runs + 1 + (sizes & 15), sizes >> 4);
    }
    at += volume.le(at + 4, 4);
  }
}

// Version 4 of XFS has no checksums to put right.
Volume old_xfs() {
  return Volume(320 * kMiB, {"mkfs.xfs", "-q", "-f", "-m", "crc=0,finobt=0"});
}

// The places of a record of the first allocation group in both of its trees: the longest one.
std::pair<uint64_t, uint64_t> longest_record(const Volume& xfs) {
  constexpr uint64_t kAgf = 512;
  const uint64_t block = xfs.be(4, 4);
  const auto find = [&](uint64_t field) {
    const uint64_t root = xfs.be(kAgf + field, 4) * block;
    uint64_t at = root + 16;
    while (xfs.be(at + 4, 4) != xfs.be(kAgf + 0x38, 4)) at += 8;
    return at;
  };
  return {find(0x10), find(0x14)};
}

}  // namespace

TEST_CASE("an NTFS whose bitmap marks its own metadata as free is doubted", "[own]") {
  const Volume volume(64 * kMiB, {"mkntfs", "-q", "-Q", "-F"});
  const uint64_t bitmap = ntfs_cluster(volume, 6, 0x80).value() * 4096;
  unsigned count = 0;
  for (unsigned number = 0; number <= 10; ++number)
    for (const uint32_t type : {0x80U, 0xA0U, 0xB0U}) {
      if (number == 8) continue;  // bad clusters
      const auto cluster = ntfs_cluster(volume, number, type);
      if (!cluster) continue;
      CAPTURE(number, type);
      volume.flip(bitmap, *cluster);
      volume.check_doubt("marks metadata as free");
      volume.flip(bitmap, *cluster);
      ++count;
    }
  CHECK(count >= 7);
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
}

TEST_CASE("FAT32 whose root directory leads into free clusters is doubted", "[own]") {
  const Volume volume(64 * kMiB, {"mkfs.fat", "-F", "32", "-s", "1"});
  const uint64_t fat = volume.le(14, 2) * 512;
  const uint64_t length = volume.le(36, 4) * 512;
  constexpr uint64_t kEnd = 0x0FFFFFFF;
  const auto chain = [&](uint64_t which, uint64_t cluster, uint64_t next) {
    volume.put_le(fat + which * length + cluster * 4, next, 4);
  };
  for (const uint64_t which : {0, 1}) {
    chain(which, 2, 3);
    chain(which, 3, kEnd);
  }
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
  SECTION("in the second FAT") {
    chain(1, 3, 0);
    volume.check_doubt("marks its root directory as free");
  }
  SECTION("in the first FAT") {
    chain(0, 3, 0);
    volume.check_doubt("the chain of its root directory is broken");
  }
  SECTION("without an end") {
    chain(0, 3, 2);
    volume.check_doubt("the chain of its root directory is broken");
  }
}

TEST_CASE("exFAT whose metadata contradict each other is doubted", "[own]") {
  const Volume volume(64 * kMiB, {"mkfs.exfat"});
  const uint64_t sector = uint64_t{1} << volume.le(0x6C, 1);
  const uint64_t cluster = sector << volume.le(0x6D, 1);
  const uint64_t heap = volume.le(0x58, 4) * sector;
  const auto place = [&](uint64_t number) { return heap + (number - 2) * cluster; };
  uint64_t bitmap = 0;
  uint64_t up_case = 0;
  for (uint64_t at = place(volume.le(0x60, 4)); volume.le(at, 1) != 0; at += 32) {
    if (volume.le(at, 1) == 0x81) bitmap = place(volume.le(at + 20, 4));
    if (volume.le(at, 1) == 0x82) up_case = at;
  }
  REQUIRE(up_case != 0);
  SECTION("the up-case table is marked as free") {
    volume.flip(bitmap, volume.le(up_case + 20, 4) - 2);
    volume.check_doubt("marks metadata as free");
  }
  SECTION("the up-case table is missing") {
    volume.put_le(up_case, 0x02, 1);
    volume.check_doubt("up-case table is damaged");
  }
  // Of two changes the volume's checksum is right.
  const auto put_checked = [&](uint64_t at, uint64_t value, unsigned size) {
    volume.put_le(at, value, size);
    const std::string boot = volume.bytes(0, 11 * sector);
    uint32_t sum = 0;
    for (size_t i = 0; i < boot.size(); ++i)
      if (i != 0x6A && i != 0x6B && i != 0x70)
        sum = (sum << 31 | sum >> 1) + static_cast<uint8_t>(boot[i]);
    for (uint64_t i = 0; i < sector; i += 4) volume.put_le(11 * sector + i, sum, 4);
  };
  SECTION("the up-case table is shorter than its clusters") {
    put_checked(0x48, volume.le(0x48, 8) - 4096, 8);
    volume.check_doubt("geometry is invalid");
  }
  SECTION("the FAT extends into the clusters") {
    put_checked(0x54, volume.le(0x58, 4), 4);
    volume.check_doubt("geometry is invalid");
  }
}

TEST_CASE("XFS whose free list has a free block is doubted", "[own]") {
  const Volume xfs = old_xfs();
  const uint64_t sector = xfs.be(0x66, 2);
  const uint64_t entry = 3 * sector + xfs.be(sector + 0x28, 4) * 4;
  const uint64_t record = longest_record(xfs).first;
  SECTION("a free block") {
    xfs.put_be(entry, xfs.be(record, 4), 4);
    xfs.check_doubt("marks metadata as free");
  }
  SECTION("a block twice") {
    xfs.put_be(entry, xfs.be(entry + 4, 4), 4);
    xfs.check_doubt("the free list of allocation group 0 is damaged");
  }
  SECTION("a wrong count") {
    xfs.put_be(sector + 0x2C, xfs.be(sector + 0x2C, 4) + 1, 4);
    xfs.check_doubt("the free list of allocation group 0 is damaged");
  }
}

TEST_CASE("an XFS whose free space trees disagree is doubted", "[own]") {
  const Volume xfs = old_xfs();
  const auto [by_block, by_length] = longest_record(xfs);
  const uint64_t start = xfs.be(by_block, 4);
  // As many blocks, and as long.
  xfs.put_be(by_block, start - 1, 4);
  xfs.check_doubt("the two free space trees of allocation group 0 differ");
  xfs.put_be(by_length, start - 1, 4);
  CHECK(xfs.read().verdict == Reading::Verdict::kFree);
  xfs.put_be(by_block, 0, 4);
  xfs.put_be(by_length, 0, 4);
  xfs.check_doubt("marks metadata as free");
}

TEST_CASE("an XFS whose free space tree has more blocks than its count is doubted", "[own]") {
  const Volume xfs = old_xfs();
  const uint64_t block = xfs.be(4, 4);
  const uint64_t root = xfs.be(512 + 0x10, 4);
  const uint64_t above = xfs.be(512 + 0x0C, 4) - 1;
  // A root over the old one, with one key.
  std::string node = xfs.bytes(root * block, 16);
  node.replace(4, 4, std::string("\0\1\0\1", 4));
  xfs.put(above * block, node + xfs.bytes(root * block + 16, 8));
  xfs.put_be(above * block + 16 + (block - 16) / 12 * 8, root, 4);
  xfs.put_be(512 + 0x10, above, 4);
  xfs.put_be(512 + 0x1C, 2, 4);
  xfs.check_doubt("the free space tree of allocation group 0 is damaged");
}
