// Volumes that mark their own metadata as free.
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

// Returns the first cluster of an attribute of an MFT record made by mkntfs. nullopt if there is
// none, or if the attribute is resident.
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

// A record of the master file table made by mkntfs, in the form that the reader sees.
class NtfsRecordBytes {
 public:
  NtfsRecordBytes(const Volume& volume, unsigned number)
      : volume_(volume),
        at_(volume.le(0x30, 8) * 4096 + number * uint64_t{kSize}),
        bytes_(volume.bytes(at_, kSize)) {
    for (size_t i = 1; i <= 2; ++i) std::memcpy(end(i), &bytes_[fixups() + 2 * i], 2);
  }

  uint64_t le(size_t at, size_t size) const {
    uint64_t value = 0;
    std::memcpy(&value, &bytes_[at], size);
    return value;
  }
  void put(size_t at, uint64_t value, size_t size) { std::memcpy(&bytes_[at], &value, size); }
  std::vector<std::string> attributes() const {
    std::vector<std::string> all;
    for (size_t at = le(0x14, 2); le(at, 4) != 0xFFFFFFFF; at += le(at + 4, 4))
      all.push_back(bytes_.substr(at, le(at + 4, 4)));
    return all;
  }
  void set_attributes(const std::vector<std::string>& all) {
    size_t at = le(0x14, 2);
    for (const std::string& it : all) {
      bytes_.replace(at, it.size(), it);
      at += it.size();
    }
    put(at, 0xFFFFFFFF, 8);
    put(0x18, at + 8, 4);
    REQUIRE(at + 8 <= kSize);
  }
  // Writes it to the place of record `number`.
  void write(unsigned number) {
    std::string out = bytes_;
    for (size_t i = 1; i <= 2; ++i) {
      out.replace(fixups() + 2 * i, 2, bytes_, 512 * i - 2, 2);
      out.replace(512 * i - 2, 2, bytes_, fixups(), 2);
    }
    volume_.put(volume_.le(0x30, 8) * 4096 + number * uint64_t{kSize}, out);
  }

 private:
  static constexpr size_t kSize = 1024;

  size_t fixups() const { return le(4, 2); }
  char* end(size_t sector) { return &bytes_[512 * sector - 2]; }

  const Volume& volume_;
  const uint64_t at_;
  std::string bytes_;
};

std::string le_text(uint64_t value, size_t size) {
  return {reinterpret_cast<const char*>(&value), size};
}

uint64_t le_of(const std::string& text, size_t at, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, text.data() + at, size);
  return value;
}

// Moves the attributes of a type from a record to record 16, and adds an attribute list.
void move_attributes(const Volume& volume, unsigned number, uint32_t type) {
  constexpr unsigned kOther = 16;
  NtfsRecordBytes first(volume, number);
  NtfsRecordBytes other = first;
  const uint64_t reference = number | first.le(0x10, 2) << 48;
  std::vector<std::string> stay, move;
  std::string entries;
  for (const std::string& it : first.attributes()) {
    const bool moves = le_of(it, 0, 4) == type;
    (moves ? move : stay).push_back(it);
    const std::string name = it.substr(le_of(it, 10, 2), le_of(it, 9, 1) * 2);
    const size_t length = (26 + name.size() + 7) / 8 * 8;
    std::string entry = it.substr(0, 4) + le_text(length, 2) + le_text(name.size() / 2, 1) +
                        le_text(26, 1) + le_text(0, 8) +
                        le_text(moves ? kOther | uint64_t{kOther} << 48 : reference, 8) +
                        le_text(0, 2) + name;
    entry.resize(length);
    entries += entry;
  }
  REQUIRE_FALSE(move.empty());
  stay.insert(stay.begin() + 1, le_text(0x20, 4) + le_text(24 + entries.size(), 4) + le_text(0, 2) +
                                    le_text(24, 2) + le_text(0, 4) + le_text(entries.size(), 4) +
                                    le_text(24, 4) + entries);
  first.set_attributes(stay);
  first.write(number);
  other.set_attributes(move);
  other.put(0x10, kOther, 2);
  other.put(0x16, 1, 2);
  other.put(0x20, reference, 8);
  other.write(kOther);
}

// Version 4 of XFS has no checksums that would need an update.
Volume old_xfs() {
  return Volume(320 * kMiB, {"mkfs.xfs", "-q", "-f", "-m", "crc=0,finobt=0"});
}

// Returns the places of the longest record of the first allocation group, in both of its trees.
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
  for (unsigned number = 0; number <= 11; ++number)
    for (const uint32_t type : {0x80U, 0xA0U, 0xB0U}) {
      if (number == 8) continue;  // a hole as long as the volume
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

TEST_CASE("NTFS whose own files go on in other records is doubted as well", "[own]") {
  // The log, the bitmap, the security descriptors, and the up-case table.
  for (const unsigned number : {2U, 6U, 9U, 10U}) {
    CAPTURE(number);
    const Volume volume(64 * kMiB, {"mkntfs", "-q", "-Q", "-F"});
    const uint64_t bitmap = ntfs_cluster(volume, 6, 0x80).value() * 4096;
    const uint64_t cluster = ntfs_cluster(volume, number, 0x80).value();
    const uint64_t free = volume.read().free;
    move_attributes(volume, number, 0x80);
    REQUIRE_FALSE(ntfs_cluster(volume, number, 0x80));
    const auto moved = volume.read();
    INFO(moved.why);
    CHECK(moved.verdict == Reading::Verdict::kFree);
    CHECK(moved.free == free);
    volume.flip(bitmap, cluster);
    volume.check_doubt("marks metadata as free");
    volume.flip(bitmap, cluster);
    // A record of another file.
    NtfsRecordBytes other(volume, 16);
    other.put(0x20, 77, 1);
    other.write(16);
    volume.check_doubt("the attributes of a record are damaged");
  }
}

TEST_CASE("NTFS whose bad clusters are free is doubted", "[own]") {
  const Volume volume(64 * kMiB, {"mkntfs", "-q", "-Q", "-F"});
  const uint64_t bitmap = ntfs_cluster(volume, 6, 0x80).value() * 4096;
  constexpr uint64_t kBad = 9000;
  REQUIRE((volume.le(bitmap + kBad / 8, 1) >> kBad % 8 & 1) == 0);
  NtfsRecordBytes record(volume, 8);
  auto all = record.attributes();
  for (std::string& it : all)
    if (le_of(it, 0, 4) == 0x80 && le_of(it, 8, 1) == 1)
      it.replace(le_of(it, 0x20, 2), 5, "\x21\x01" + le_text(kBad, 3));
  record.set_attributes(all);
  record.write(8);
  volume.check_doubt("marks metadata as free");
  volume.flip(bitmap, kBad);
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
}

TEST_CASE("ext3 whose bitmap calls the journal free is doubted", "[own]") {
  for (const char* const type : {"ext3", "ext4"}) {
    CAPTURE(type);
    const Volume volume(64 * kMiB, {"mke2fs", "-q", "-F", "-b", "4096", "-O",
                                    "^metadata_csum,^uninit_bg", "-t", type});
    const auto number = [&](const std::string& command) {
      return std::stoull(support::run_ok({"debugfs", "-R", command, volume.path()}).out);
    };
    // There is one group.  Exchanges a block with a free one, so that the counts stay.
    const uint64_t bitmap = volume.le(4096, 4) * 4096;
    uint64_t free = 0;
    while ((volume.le(bitmap + free / 8, 1) >> free % 8 & 1) != 0) ++free;
    for (const uint64_t block : {number("bmap <8> 0"), number("bmap <8> 900")}) {
      CAPTURE(block);
      volume.flip(bitmap, free);
      volume.flip(bitmap, block);
      volume.check_doubt("mark the journal as free");
      volume.flip(bitmap, free);
      volume.flip(bitmap, block);
    }
    CHECK(volume.read().verdict == Reading::Verdict::kFree);
  }
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
  // Writes two values that leave the volume's checksum unchanged.
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
  // The same number and length of blocks.
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
  // Adds a new root with one key above the old root.
  std::string node = xfs.bytes(root * block, 16);
  node.replace(4, 4, std::string("\0\1\0\1", 4));
  xfs.put(above * block, node + xfs.bytes(root * block + 16, 8));
  xfs.put_be(above * block + 16 + (block - 16) / 12 * 8, root, 4);
  xfs.put_be(512 + 0x10, above, 4);
  xfs.put_be(512 + 0x1C, 2, 4);
  xfs.check_doubt("the free space tree of allocation group 0 is damaged");
}
