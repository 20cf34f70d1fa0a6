// Partition tables made by fdisk, some of them damaged afterwards.
#include "appliance/partition_table.h"

#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using appliance::PartitionTable;
using Kind = appliance::PartitionTable::Kind;
using Catch::Contains;

namespace {

constexpr uint64_t kSize = 32 << 20;

class Disk {
 public:
  Disk() : path_(folder_ / "disk") {
    support::write_file(path_, "");
    support::resize_file(path_, kSize);
  }

  // `words`: the input of fdisk.
  void fdisk(uint64_t sector_size, const std::string& words) const {
    support::RunOptions options;
    options.input = words;
    support::run_ok({"fdisk", "-w", "always", "-b", std::to_string(sector_size), path_}, options);
  }
  void gpt(uint64_t sector_size) const { fdisk(sector_size, "g\nn\n1\n\n\nw\n"); }
  void patch(uint64_t at, const std::string& bytes) const {
    support::patch_file(path_, at, std::as_bytes(std::span(bytes)));
  }
  std::string bytes(uint64_t at, uint64_t length) const {
    const auto read = support::RawFile(path_).read(at, length);
    return {reinterpret_cast<const char*>(read.data()), read.size()};
  }
  void spoil(uint64_t at) const {
    patch(at, std::string(1, static_cast<char>(bytes(at, 1)[0] ^ 1)));
  }
  void clear(uint64_t at, uint64_t length) const { patch(at, std::string(length, '\0')); }

  PartitionTable table() const {
    const support::RawFile file(path_);
    auto found = appliance::find_partition_table(
        file.size(), [&](uint64_t at, std::span<std::byte> to) -> Result<void> {
          REQUIRE(at + to.size() <= file.size());
          file.read(at, to);
          return {};
        });
    REQUIRE(found);
    return *found;
  }
  const std::string& path() const { return path_; }

 private:
  const support::TempDirectory folder_;
  const std::string path_;
};

}  // namespace

TEST_CASE("the sector size is taken from the partition table", "[table]") {
  const uint64_t sector_size = GENERATE(512, 4096);
  CAPTURE(sector_size);
  const Disk disk;
  SECTION("a GPT") {
    disk.gpt(sector_size);
    CHECK(disk.table().kind == Kind::kGpt);
    CHECK(disk.table().sector_size == sector_size);
    CHECK(disk.table().problem.empty());
  }
  SECTION("a GPT without its backup, as on a disk that has grown") {
    disk.gpt(sector_size);
    disk.clear(kSize - sector_size, sector_size);
    CHECK(disk.table().kind == Kind::kGpt);
    CHECK(disk.table().sector_size == sector_size);
  }
  SECTION("an MBR with a filesystem") {
    disk.fdisk(sector_size, "o\nn\np\n1\n2560\n\nw\n");
    CHECK(disk.table().kind == Kind::kMbr);
    CHECK(disk.table().sector_size == 512);
    support::run_ok({"mke2fs", "-q", "-t", "ext4", "-E",
                     "offset=" + std::to_string(2560 * sector_size), disk.path(), "16M"});
    CHECK(disk.table().kind == Kind::kMbr);
    CHECK(disk.table().sector_size == sector_size);
  }
}

TEST_CASE("the consistent one of two partition tables is used", "[table]") {
  const Disk disk;
  disk.gpt(512);
  const std::string old = disk.bytes(512, 512);
  disk.gpt(4096);
  disk.patch(512, old);
  CHECK(disk.table().kind == Kind::kGpt);
  CHECK(disk.table().sector_size == 4096);
}

TEST_CASE("a disk without a partition table has none", "[table]") {
  const Disk disk;
  CHECK(disk.table().kind == Kind::kNone);
  // A boot sector of a filesystem looks like an MBR without partitions.
  support::run_ok({"mke2fs", "-q", "-t", "ext4", disk.path(), "16M"});
  disk.patch(510, "\x55\xaa");
  CHECK(disk.table().kind == Kind::kNone);
  // An old backup table alone does not count.
  disk.gpt(512);
  disk.clear(0, 1 << 20);
  CHECK(disk.table().kind == Kind::kNone);
}

TEST_CASE("a damaged GPT is reported, with the state of its parts", "[table]") {
  const uint64_t sector_size = GENERATE(512, 4096);
  CAPTURE(sector_size);
  const Disk disk;
  disk.gpt(sector_size);
  std::string what;
  SECTION("in its header") {
    disk.spoil(sector_size + 60);
    what = "checksum is wrong; the backup at the end of the disk is valid";
  }
  SECTION("in its entries") {
    disk.spoil(2 * sector_size + 20);
    what = "list of partitions whose checksum is wrong; the backup";
  }
  SECTION("in the header and the backup") {
    disk.spoil(sector_size + 60);
    disk.spoil(kSize - sector_size + 60);
    what = "checksum is wrong: let the guest";
  }
  SECTION("without a header") {
    disk.clear(sector_size, sector_size);
    what = "no header at the start of the disk; the backup at the end of the disk is valid";
  }
  SECTION("without a protective MBR") {
    disk.clear(0, 512);
    what = "no protective MBR";
  }
  const PartitionTable table = disk.table();
  CHECK(table.kind == Kind::kDamagedGpt);
  CHECK(table.sector_size == sector_size);
  CHECK_THAT(table.problem, Contains(what) && Contains(std::to_string(sector_size) + " bytes"));
}

TEST_CASE("no table causes a read outside of the disk", "[table]") {
  const uint64_t seed = support::base_seed();
  const Disk disk;
  for (uint64_t i = 0; i < support::iterations(200); ++i) {
    CAPTURE(seed + i);
    support::Random random(seed + i);
    if (i % 20 == 0) disk.gpt(random.chance(50) ? 512 : 4096);
    for (const uint64_t at : {uint64_t{446}, uint64_t{512}, uint64_t{4096}, kSize - 512}) {
      std::vector<std::byte> noise(1 + random.below(92));
      random.fill(noise);
      const std::string text(reinterpret_cast<const char*>(noise.data()), noise.size());
      if (random.chance(30)) disk.patch(at + (at == 446 ? 0 : 8 + random.below(80)), text);
    }
    (void)disk.table();
  }
}
