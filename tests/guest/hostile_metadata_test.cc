// Metadata made to mislead a reader, or to keep it busy.
#include <cstring>

#include "guest/reading/checksums.h"
#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/guest/made_volume.h"
#include "tests/guest/ntfs_log.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest::Ranges;
using guest::Reading;
using guest_test::restart_page;
using support::TempDirectory;

namespace {

using Volume = guest_test::MadeVolume;

constexpr uint64_t kMiB = 1 << 20;

std::string le(uint64_t value, size_t size) {
  std::string bytes(size, '\0');
  std::memcpy(bytes.data(), &value, size);
  return bytes;
}

// Counts the bytes read.
class CountedDisk final : public guest::DiskView {
 public:
  explicit CountedDisk(const std::string& path) : DiskView(0), file_(path) {}

  uint64_t size() const override { return file_.size(); }
  uint64_t reads() const { return reads_; }

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override {
    ++reads_;
    file_.read(at, to);
    return {};
  }

  const support::RawFile file_;
  mutable uint64_t reads_ = 0;
};

// The blocks of a btrfs that tests make.
class BtrfsBlocks {
 public:
  static constexpr uint64_t kNode = 16 << 10;

  explicit BtrfsBlocks(const Volume& volume)
      : volume_(volume), bytes_(support::read_file(volume.path())) {
    const uint64_t root = le64(kSuper + 0x50);
    uint64_t at = 0;
    while (le64(at + 0x30) != root ||
           std::memcmp(&bytes_[at + 0x20], &bytes_[kSuper + 0x20], 16) != 0)
      at += kNode;
    root_ = at;
    logical_ = root - at;
  }

  // Start of the root tree. The chunk continues there, and is empty after the first few blocks.
  uint64_t root() const { return root_; }
  // Writes a node of the root tree.
  void put_node(uint64_t at, uint8_t level, const std::string& items, uint32_t count) const {
    std::string node(kNode, '\0');
    std::memcpy(node.data(), &bytes_[root_], 0x65);
    node.replace(0x30, 8, le(logical_ + at, 8));
    node.replace(0x60, 4, le(count, 4));
    node[0x64] = static_cast<char>(level);
    node.replace(0x65, items.size(), items);
    put_summed(at, std::move(node));
  }
  // Returns a pointer to a node at `at`.
  std::string pointer(const std::string& key, uint64_t at) const {
    return key + le(logical_ + at, 8) + le(le64(root_ + 0x50), 8);
  }
  void put_root(uint64_t at, uint8_t level) const {
    std::string super(reinterpret_cast<const char*>(&bytes_[kSuper]), 4096);
    super.replace(0x50, 8, le(logical_ + at, 8));
    super[0xC6] = static_cast<char>(level);
    super.replace(0x78, 8, le(bytes_.size(), 8));  // bytes in use: permits as many nodes as fit
    put_summed(kSuper, std::move(super));
  }

 private:
  static constexpr uint64_t kSuper = 64 << 10;

  uint64_t le64(uint64_t at) const {
    uint64_t value = 0;
    std::memcpy(&value, &bytes_.at(at), 8);
    return value;
  }
  void put_summed(uint64_t at, std::string block) const {
    block.replace(0, 4, le(guest::crc32c(std::as_bytes(std::span(block)).subspan(32)), 4));
    volume_.put(at, block);
  }

  const Volume& volume_;
  const std::vector<std::byte> bytes_;
  uint64_t root_ = 0;     // bytes
  uint64_t logical_ = 0;  // difference between logical and physical addresses, modulo 2^64
};

}  // namespace

TEST_CASE("a btrfs whose nodes share children is doubted at once", "[hostile]") {
  const Volume volume(256 * kMiB, {"mkfs.btrfs", "-q", "-f", "-m", "single"});
  const BtrfsBlocks blocks(volume);
  constexpr uint32_t kCount = 20;
  constexpr uint8_t kHighest = 7;
  // Node `i` of a level has the children from `i` on. Keys ascend, and each child begins with its
  // key. So there are many paths from the root.
  const uint64_t first = blocks.root() + kMiB;
  const auto place = [&](uint8_t level, uint64_t i) {
    return first + (level * kCount + i) * BtrfsBlocks::kNode;
  };
  const auto key = [](uint64_t i) { return le(1000 + i, 8) + "\x01" + le(0, 8); };
  for (uint32_t i = 0; i < kCount; ++i) {
    blocks.put_node(place(0, i), 0, key(i) + le(0, 8), 1);
    for (uint8_t level = 1; level <= kHighest; ++level) {
      std::string items;
      for (uint32_t child = i; child < kCount; ++child)
        items += blocks.pointer(key(child), place(level - 1, child));
      blocks.put_node(place(level, i), level, items, kCount - i);
    }
  }
  blocks.put_root(place(kHighest, 0), kHighest);
  volume.check_doubt("is damaged");
  const auto disk = std::make_shared<CountedDisk>(volume.path());
  guest::inspect({disk});
  CHECK(disk->reads() < (kHighest + 1) * kCount);
}

TEST_CASE("an ext4 whose block groups share a bitmap is doubted", "[hostile]") {
  const Volume volume(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024", "-O", "none"});
  // The descriptors are in the block after the superblock, 32 bytes each.
  const auto bytes = support::read_file(volume.path());
  const auto* const text = reinterpret_cast<const char*>(bytes.data());
  volume.put(2048 + 2 * 32, std::string(text + 2048 + 32, 4));
  volume.check_doubt("share a bitmap");
}

TEST_CASE("two restart pages of the same age must both be clean", "[hostile]") {
  const Volume volume(64 * kMiB, {"mkntfs", "-q", "-Q", "-F"});
  const uint64_t log = guest_test::ntfs_log(volume.path());
  volume.put(log, restart_page(5, true));
  volume.put(log + 4096, restart_page(5, true));
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
  volume.put(log + 4096, restart_page(5, false));
  volume.check_doubt("replayed");
  volume.put(log, restart_page(6, true));
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
}

TEST_CASE("an NTFS with an incomplete restart page is doubted", "[hostile]") {
  const Volume volume(64 * kMiB, {"mkntfs", "-q", "-Q", "-F"});
  const uint64_t log = guest_test::ntfs_log(volume.path());
  volume.put(log, restart_page(5, true));
  volume.put(log + 4096, restart_page(4, true));
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
  for (const uint64_t page : {0, 4096}) {
    volume.put(log + page + 3 * 512 - 2, std::string("\x07\x07", 2));
    volume.check_doubt("was written only in part");
    volume.put(log + page + 3 * 512 - 2, std::string("\x01\x01", 2));
  }
  // A page as chkdsk writes it: without an update sequence.
  volume.put(log, "CHKD" + le(0, 4));
  volume.put(log + 3 * 512 - 2, std::string("\x07\x07", 2));
  CHECK(volume.read().verdict == Reading::Verdict::kFree);
}

TEST_CASE("the number of collected ranges is limited", "[hostile]") {
  Ranges::Builder builder;
  for (uint64_t i = 0; i < Ranges::Builder::kMost; ++i) builder.add(2 * i, 2 * i + 1);
  // The last range can still grow.
  builder.add(2 * Ranges::Builder::kMost - 1, 2 * Ranges::Builder::kMost);
  CHECK_THROWS_AS(builder.add(UINT64_MAX - 1, UINT64_MAX), guest::TooManyRanges);
}

TEST_CASE("volumes with too many ranges in total are kept completely", "[hostile]") {
  const TempDirectory folder;
  const std::string path = folder / "volume";
  support::write_file(path, std::string());
  support::resize_file(path, 1300 * kMiB);
  support::run_ok({"mkfs.vfat", "-F", "32", "-s", "1", path});
  // Every second cluster is in use: there are 1.3 million ranges.
  const auto boot = support::RawFile(path).read(0, 512);
  uint32_t sectors = 0;
  std::memcpy(&sectors, boot.data() + 0x24, 4);
  auto fat = support::RawFile(path).read(32 * 512, sectors * uint64_t{512});
  for (size_t at = 12; at + 4 <= fat.size(); at += 8)
    std::memcpy(fat.data() + at, "\xff\xff\xff\x0f", 4);
  for (const uint64_t copy : {0, 1}) support::patch_file(path, (32 + copy * sectors) * 512, fat);
  CHECK(guest_test::inspect_files({path}).free_on(0).all().size() > 1000000);
  const auto both = guest_test::inspect_files({path, path});
  CHECK(both.free_on(0).empty());
  CHECK(both.free_on(1).empty());
  CHECK(both.doubts == std::vector<std::string>{"/dev/sda: its free space has too many pieces",
                                                "/dev/sdb: its free space has too many pieces"});
}
