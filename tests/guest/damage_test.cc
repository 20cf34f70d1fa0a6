// Damaged metadata never make a used byte free, if the format can detect the damage.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <mutex>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest::Range;
using support::Random;
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;

// A disk that records its reads, and in which some bytes are replaced.
class DamagedDisk final : public guest::DiskView {
 public:
  explicit DamagedDisk(const std::string& path) : DiskView(0), file_(path) {}

  uint64_t size() const override { return file_.size(); }
  const std::vector<Range>& reads() const { return reads_; }
  void damage(uint64_t at, std::vector<std::byte> bytes) {
    at_ = at;
    bytes_ = std::move(bytes);
  }

 private:
  Result<void> fetch(uint64_t at, std::span<std::byte> to) const override {
    file_.read(at, to);
    reads_.push_back({at, at + to.size()});
    for (size_t i = 0; i < bytes_.size(); ++i)
      if (at_ + i >= at && at_ + i < at + to.size()) to[at_ + i - at] = bytes_[i];
    return {};
  }

  const support::RawFile file_;
  uint64_t at_ = 0;
  std::vector<std::byte> bytes_;
  mutable std::vector<Range> reads_;
};

void make_volume(const std::string& path, uint64_t size, std::vector<std::string> make) {
  support::write_file(path, std::string());
  support::resize_file(path, size);
  make.push_back(path);
  support::run_ok(make);
}

// Calls `check` with a view of the volume after damage to bytes that were read before.
void damage_reads(const std::shared_ptr<DamagedDisk>& disk, const guest::FileKinds& kinds,
                  const std::function<void(const guest::Inspection&)>& check) {
  const std::vector<Range> reads = disk->reads();
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(300); ++i) {
    Random random(seed + i);
    const Range& read = random.pick(reads);
    std::vector<std::byte> bytes(random.between(1, 8));
    const uint64_t at = read.begin + random.below(read.length());
    if (at + bytes.size() > disk->size()) continue;
    random.fill(bytes);
    if (random.chance(30)) std::fill(bytes.begin(), bytes.end(), std::byte{0});
    disk->damage(at, bytes);
    INFO("VIRT_COMPACT_SEED=" << seed + i << ", at " << at);
    check(guest::inspect({disk}, kinds));
  }
}

// Damages the metadata that lead to files. With `tells`, a found file must never contain data of
// another file. Without it, a found file must contain neither free space nor metadata, and nothing
// may crash.
void damage_files(const std::string& path, bool tells) {
  constexpr guest::FileKinds kAll{true, true, true, true};
  const auto disk = std::make_shared<DamagedDisk>(path);
  const auto contents = [](const guest::Inspection& inspection) {
    guest::Ranges::Builder all;
    for (const guest::Volume& volume : inspection.volumes)
      for (const guest::VolumeFile& file : volume.files)
        for (const Range& range : file.on_disks.at(0).all()) all.add(range.begin, range.end);
    return all.take();
  };
  const guest::Ranges found = contents(guest::inspect({disk}, kAll));
  REQUIRE(found.total() > kMiB);
  damage_reads(disk, kAll, [&](const guest::Inspection& inspection) {
    const guest::Ranges now = contents(inspection);
    if (tells) CHECK(now.without(found).empty());
    CHECK(now.within(inspection.free_on(0)).empty());
  });
}

// Damages the bytes that the reader reads, many times. With `tells`, no used byte may become free.
// Without it, nothing may crash.
void damage(uint64_t size, const std::vector<std::string>& make, bool tells) {
  const TempDirectory folder;
  const std::string path = folder / "volume";
  INFO(make.front());
  make_volume(path, size, make);
  const auto disk = std::make_shared<DamagedDisk>(path);
  const guest::Ranges free = guest::inspect({disk}).free_on(0);
  REQUIRE(free.total() > 0);
  uint64_t refused = 0;
  damage_reads(disk, {}, [&](const guest::Inspection& inspection) {
    const guest::Ranges now = inspection.free_on(0);
    refused += now.empty() ? 1 : 0;
    if (tells) CHECK(now.without(free).empty());
    CHECK((now.empty() || now.all().back().end <= size));
  });
  if (tells) CHECK((support::iterations(300) < 100 || refused > 0));
}

}  // namespace

TEST_CASE("damaged metadata never make used space free", "[damage]") {
  damage(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext4", "-d", "/usr/share/common-licenses"}, true);
  damage(64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext2", "-d", "/usr/share/common-licenses"}, true);
  damage(320 * kMiB, {"mkfs.xfs", "-q", "-f"}, true);
  damage(256 * kMiB, {"mkfs.btrfs", "-q", "-f", "-r", "/usr/share/common-licenses"}, true);
}

// In a bitmap without a checksum, a changed bit cannot be detected.
TEST_CASE("damaged metadata of other filesystems lead to no crash", "[damage]") {
  damage(64 * kMiB, {"mkntfs", "-q", "-Q", "-F"}, false);
  damage(64 * kMiB, {"mkfs.fat", "-F", "32"}, false);
  damage(8 * kMiB, {"mkfs.fat", "-F", "12"}, false);
  damage(64 * kMiB, {"mkfs.exfat"}, false);
  damage(8 * kMiB, {"mkswap", "-q"}, false);
}

TEST_CASE("damaged metadata never lead to the content of another file", "[damage]") {
  const TempDirectory folder;
  const std::string volume = folder / "volume";
  const std::vector<std::byte> data(4 * kMiB, std::byte{1});
  support::run_ok({"mkdir", folder / "tree"});
  support::write_file(folder / "tree/swapfile", data);
  support::write_file(folder / "tree/other", data);
  support::run_ok({"mkswap", "-q", folder / "tree/swapfile"});
  for (const char* const features : {"metadata_csum", "^metadata_csum,^extents,^64bit"}) {
    INFO(features);
    std::filesystem::remove(volume);
    make_volume(volume, 64 * kMiB,
                {"mke2fs", "-q", "-F", "-t", "ext4", "-O", features, "-d", folder / "tree"});
    damage_files(volume, features[0] != '^');
  }
  make_volume(volume, 64 * kMiB, {"mkntfs", "-q", "-Q", "-F"});
  support::run_ok({"ntfscp", "-q", volume, folder / "tree/other", "pagefile.sys"});
  damage_files(volume, false);
}
