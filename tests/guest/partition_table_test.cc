#include "guest/layout/partition_table.h"

#include <fmt/format.h>

#include <cstring>

#include "guest/reading/checksums.h"
#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest::PartitionTable;
using guest::Reading;
using guest_test::ImageFile;
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;

std::string partitioned(const TempDirectory& folder, const std::string& script,
                        const std::vector<std::string>& options = {}) {
  const std::string path = folder / "disk";
  support::write_file(path, std::string());
  support::resize_file(path, 64 * kMiB);
  std::vector<std::string> command{"sfdisk", "-q"};
  command.insert(command.end(), options.begin(), options.end());
  command.push_back(path);
  support::RunOptions how;
  how.input = script;
  support::run_ok(command, how);
  return path;
}

constexpr const char* kGpt =
    "label: gpt\n"
    "start=2048, size=16384, type=L\n"
    "start=20480, size=8192, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n"
    "start=32768, size=32768, type=L\n";

void put(const std::string& path, uint64_t at, const std::string& bytes) {
  support::patch_file(path, at, std::as_bytes(std::span(bytes)));
}

}  // namespace

TEST_CASE("a GPT's partitions are found", "[partitions]") {
  const TempDirectory folder;
  const ImageFile disk(partitioned(folder, kGpt), 0);
  const auto table = guest::read_partition_table(*disk.view());
  REQUIRE_OK(table);
  CHECK(table->kind == PartitionTable::Kind::kGpt);
  CHECK(table->sector == 512);
  REQUIRE(table->partitions.size() == 3);
  CHECK(table->partitions[0].number == 1);
  CHECK(table->partitions[0].begin == 2048 * 512);
  CHECK(table->partitions[0].length == 16384 * 512);
  CHECK(table->partitions[0].left_alone.empty());
  CHECK_FALSE(table->partitions[1].left_alone.empty());
  CHECK(table->partitions[2].begin == 32768 * 512);
}

TEST_CASE("a GPT that is damaged is doubted, and nothing of its disk is free", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder, kGpt);
  const std::string swap = folder / "swap";
  support::write_file(swap, std::string());
  support::resize_file(swap, 16384 * 512);
  support::run_ok({"mkswap", "-q", swap});
  support::patch_file(path, 2048 * 512, support::RawFile(swap).read(0, 65536));
  CHECK(guest_test::inspect_files({path}).doubts.empty());
  CHECK(guest_test::inspect_files({path}).free_on(0).total() == 16384 * 512 - 65536);
  SECTION("in its header") {
    put(path, 512 + 72, "x");
  }
  SECTION("in its entries") {
    put(path, 1024 + 32, "x");
  }
  SECTION("completely: a protective MBR without a GPT") {
    put(path, 512, std::string(512, '\0'));
  }
  const auto inspection = guest_test::inspect_files({path});
  CHECK(inspection.volumes.empty());
  REQUIRE(inspection.doubts.size() == 1);
  CHECK_THAT(inspection.doubts.front(), Catch::StartsWith("/dev/sda: "));
  CHECK(inspection.free_on(0).empty());
}

TEST_CASE("logical partitions are found, and counted as Linux does", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder,
                                       "label: dos\n"
                                       "start=2048, size=8192, type=83\n"
                                       "start=10240, size=100000, type=5\n"
                                       "start=12288, size=8192, type=83\n"
                                       "start=24576, size=8192, type=42\n"
                                       "start=40960, size=8192, type=82\n");
  const ImageFile disk(path, 0);
  const auto table = guest::read_partition_table(*disk.view());
  REQUIRE_OK(table);
  CHECK(table->kind == PartitionTable::Kind::kMbr);
  std::string text;
  for (const auto& it : table->partitions)
    text += fmt::format("{}:{}+{}{} ", it.number, it.begin / 512, it.length / 512,
                        it.left_alone.empty() ? "" : "!");
  CHECK(text == "1:2048+8192 5:12288+8192 6:24576+8192! 7:40960+8192 ");
}

TEST_CASE("logical partitions that lead in a circle are doubted", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder,
                                       "label: dos\n"
                                       "start=2048, size=100000, type=5\n"
                                       "start=4096, size=8192, type=83\n"
                                       "start=24576, size=8192, type=83\n");
  // Makes the second EBR point back to itself, like the first EBR, which points to it.
  const auto first = support::RawFile(path).read(2048 * 512, 512);
  uint32_t offset = 0;
  std::memcpy(&offset, first.data() + 446 + 16 + 8, sizeof offset);
  auto second = support::RawFile(path).read((2048 + offset) * uint64_t{512}, 512);
  std::memcpy(second.data() + 446 + 16, first.data() + 446 + 16, 16);
  std::memset(second.data() + 446 + 16 + 8, 0, 4);
  support::patch_file(path, (2048 + offset) * uint64_t{512}, second);
  const auto inspection = guest_test::inspect_files({path});
  REQUIRE(inspection.doubts.size() == 1);
  CHECK_THAT(inspection.doubts.front(), Catch::Contains("logical partitions is damaged"));
}

TEST_CASE("partitions that overlap are doubted", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder,
                                       "label: dos\n"
                                       "start=2048, size=8192, type=83\n"
                                       "start=10240, size=8192, type=83\n");
  put(path, 446 + 12, std::string("\x01\x20\x00\x00", 4));
  REQUIRE(guest_test::inspect_files({path}).doubts.size() == 1);
  CHECK_THAT(guest_test::inspect_files({path}).doubts.front(), Catch::Contains("overlap"));
}

TEST_CASE("a filesystem left over before a newer partition table is not trusted", "[partitions]") {
  const TempDirectory folder;
  const std::string path = folder / "disk";
  support::write_file(path, std::string());
  support::resize_file(path, 64 * kMiB);
  support::run_ok({"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", path});
  CHECK(guest_test::inspect_files({path}).free_on(0).total() > 0);
  support::RunOptions how;
  how.input = "label: dos\nstart=2048, size=8192, type=82\n";
  support::run_ok({"sfdisk", "-q", "--wipe=never", path}, how);
  REQUIRE(support::RawFile(path).read(1024 + 0x38, 1)[0] == std::byte{0x53});
  const auto inspection = guest_test::inspect_files({path});
  REQUIRE(inspection.volumes.size() == 1);
  CHECK(inspection.volumes.front().device == "/dev/sda1");
  CHECK(inspection.free_on(0).empty());
}

namespace {

std::string doubt_of(const std::string& path) {
  const auto inspection = guest_test::inspect_files({path});
  CHECK(inspection.volumes.empty());
  CHECK(inspection.free_on(0).empty());
  return inspection.doubts.empty() ? "" : inspection.doubts.front();
}

// Returns an MBR entry without cylinder addresses.
std::string mbr_entry(uint8_t type, uint32_t first, uint32_t count) {
  std::string entry(16, '\0');
  entry[4] = static_cast<char>(type);
  std::memcpy(entry.data() + 8, &first, 4);
  std::memcpy(entry.data() + 12, &count, 4);
  return entry;
}

void put_gpt_checksums(const std::string& path) {
  const auto entries = support::RawFile(path).read(1024, 128 * 128);
  const uint32_t of_entries = guest::crc32(entries);
  put(path, 512 + 88, std::string(reinterpret_cast<const char*>(&of_entries), 4));
  put(path, 512 + 16, std::string(4, '\0'));
  const uint32_t of_header = guest::crc32(support::RawFile(path).read(512, 92));
  put(path, 512 + 16, std::string(reinterpret_cast<const char*>(&of_header), 4));
}

}  // namespace

TEST_CASE("a GPT counts only if the MBR says that there is one", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder, kGpt);
  SECTION("a newer MBR") {
    put(path, 446, mbr_entry(0x83, 32768, 8192));
    CHECK_THAT(doubt_of(path), Catch::Contains("MBR"));
  }
  SECTION("an MBR that was cleared") {
    put(path, 0, std::string(512, '\0'));
    CHECK_THAT(doubt_of(path), Catch::Contains("no protective MBR"));
  }
}

TEST_CASE("a hybrid MBR must have the same partitions as the GPT", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder, kGpt);
  put(path, 446 + 16, mbr_entry(7, 32768, 32768));
  CHECK(guest_test::inspect_files({path}).volumes.size() == 3);
  put(path, 446 + 16, mbr_entry(7, 65536, 32768));
  CHECK_THAT(doubt_of(path), Catch::Contains("that its GPT does not have"));
}

TEST_CASE("a disk with a GPT for each sector size is doubted", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder, kGpt);
  put(path, 4096, "EFI PART");
  CHECK_THAT(doubt_of(path), Catch::Contains("two GPTs"));
}

TEST_CASE("a GPT with a partition outside of the usable sectors is doubted", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder, kGpt);
  put_gpt_checksums(path);
  CHECK(guest_test::inspect_files({path}).doubts.empty());
  SECTION("before the first usable sector") {
    put(path, 512 + 40, std::string("\x01\x08\0\0\0\0\0\0", 8));
  }
  SECTION("after the last usable sector") {
    put(path, 512 + 48, std::string("\xfe\xff\0\0\0\0\0\0", 8));
  }
  put_gpt_checksums(path);
  CHECK_THAT(doubt_of(path), Catch::Contains("outside of the usable sectors"));
}

TEST_CASE("a table of logical partitions inside of a partition is doubted", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder,
                                       "label: dos\n"
                                       "start=2048, size=8192, type=83\n"
                                       "start=20480, size=100000, type=5\n"
                                       "start=24576, size=8192, type=83\n");
  CHECK(guest_test::inspect_files({path}).doubts.empty());
  put(path, 446, mbr_entry(0x83, 20000, 2000));
  CHECK_THAT(doubt_of(path), Catch::Contains("inside of partition 1"));
}

TEST_CASE("an MBR that may count in sectors of 4096 bytes is doubted", "[partitions]") {
  const TempDirectory folder;
  const std::string path = partitioned(folder, "label: dos\nstart=256, size=8192, type=83\n");
  CHECK(guest_test::inspect_files({path}).doubts.empty());
  const std::string inner = folder / "inner";
  support::write_file(inner, std::string());
  support::resize_file(inner, 32 * kMiB);
  support::run_ok({"mke2fs", "-q", "-F", "-t", "ext4", inner});
  support::patch_file(path, 256 * 4096, support::RawFile(inner).read(0, 8192));
  CHECK_THAT(doubt_of(path), Catch::Contains("sectors of 512 bytes and of 4096"));
}
