// virt-compact compact --compress: the same image, compressed.
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/compact/compact_run.h"
#include "tests/tool/commands/encryption/luks_disk.h"

using namespace vc;

namespace {

using Catch::Contains;
using compact_test::states_of;
using compact_test::summary;
using nlohmann::json;
using support::run_ok;
using tool_test::run_tool;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 64 << 10;

// A raw disk of 24 MiB: in turn data that gets smaller, noise, and zeros.
void make_raw(const std::string& path) {
  std::mt19937_64 random(1);
  std::vector<std::byte> bytes(24 * kMiB);
  for (size_t at = 0; at < bytes.size(); at += kCluster) {
    const uint64_t kind = random() % 8;
    if (kind == 0) continue;
    for (size_t i = 0; i < kCluster; i += 8) {
      if (kind > 2 && i % 64 >= 16) continue;
      const uint64_t word = random();
      std::memcpy(&bytes[at + i], &word, 8);
    }
  }
  support::write_file(path, bytes);
}

// An image with a snapshot, which shares most of its data, and free clusters.
std::string make_disk(const support::TempDirectory& folder) {
  const std::string disk = folder / "disk.qcow2";
  make_raw(folder / "raw");
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", disk});
  run_ok({"qemu-img", "snapshot", "-c", "first", disk});
  run_ok({"qemu-io", "-f", "qcow2", "-d", "unmap", "-c", "write -q -P 7 2M 1M", "-c",
          "write -q -s " + (folder / "raw") + " 9M 4M", "-c", "discard -q 16M 2M", disk});
  run_ok({"qemu-img", "bitmap", "--add", disk, "b0"});
  return disk;
}

double length_of(const std::string& path) {
  return static_cast<double>(std::filesystem::file_size(path));
}

}  // namespace

TEST_CASE("compact --compress makes a file as short as a compressed copy", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  const auto states = states_of(folder, disk);
  REQUIRE(run_tool({"copy", "-q", "--with-snapshots", "--bitmaps", "--compression=zlib", disk,
                    folder / "fresh"})
              .ok());
  const auto before = support::read_file(disk);
  const json predicted = summary(run_tool({"compact", "--compress", "--dry-run", "--json", disk}));
  CHECK((support::read_file(disk) == before));
  const json done = summary(run_tool({"compact", "-c", "--threads=2", "--json", disk}));
  CHECK(done["compressed"].get<uint64_t>() > 5 * kMiB);
  CHECK(done["compressed"] == predicted["compressed"]);
  CHECK(done["not-moved"] == 0);
  CHECK(length_of(disk) <= 1.01 * length_of(folder / "fresh"));
  CHECK(length_of(disk) <= 1.01 * predicted["after"]["length"].get<double>());
  CHECK(length_of(disk) >= 0.99 * predicted["after"]["length"].get<double>());
  run_ok({"qemu-img", "check", "-q", disk});
  CHECK((states_of(folder, disk) == states));
  CHECK_THAT(run_ok({"qemu-img", "info", "--output=json", disk}).out, Contains("\"b0\""));

  const json again = summary(run_tool({"compact", "-c", "--json", disk}));
  CHECK(again["moved"] == 0);
  CHECK(again["compressed"] == 0);
  CHECK_THAT(run_tool({"compact", "--defragment", disk}).out,
             Contains("compressed clusters, which stay where they are"));
  CHECK((states_of(folder, disk) == states));
}

TEST_CASE("compact --compress packs compressed clusters that are not next to each other",
          "[compact]") {
  const support::TempDirectory folder;
  make_raw(folder / "raw");
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", folder / "raw", disk});
  std::vector<std::string> discards{"qemu-io", "-f", "qcow2", "-d", "unmap"};
  for (unsigned i = 0; i < 24 * kMiB / kCluster; i += 2)
    discards.insert(discards.end(), {"-c", "discard -q " + std::to_string(i * kCluster) + " 64k"});
  discards.push_back(disk);
  run_ok(discards);
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before"});
  REQUIRE(run_tool({"copy", "-q", "--compression=zlib", disk, folder / "fresh"}).ok());
  const json shrunk = summary(run_tool({"compact", "--json", disk}));
  const json done = summary(run_tool({"compact", "-c", "--json", disk}));
  CHECK(done["compressed"] == 0);
  CHECK(done["after"]["length"].get<uint64_t>() < shrunk["after"]["length"].get<uint64_t>());
  CHECK(length_of(disk) <= 1.01 * length_of(folder / "fresh"));
  run_ok({"qemu-img", "check", "-q", disk});
  run_ok({"qemu-img", "compare", "-q", disk, "-F", "raw", folder / "before"});
}

TEST_CASE("compact --compress with --defragment orders and compresses", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  const auto states = states_of(folder, disk);
  const json done = summary(run_tool({"compact", "--defragment", "-c", "--json", disk}));
  CHECK(done["misplaced"].get<uint64_t>() > kMiB);
  CHECK(done["compressed"].get<uint64_t>() > 5 * kMiB);
  run_ok({"qemu-img", "check", "-q", disk});
  CHECK((states_of(folder, disk) == states));
}

TEST_CASE("compact --compress needs the space of one batch", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  const auto states = states_of(folder, disk);
  // The file may grow by 16 MiB.
  const auto outcome = tool_test::run_script(
      "ulimit -f $(( ( $(stat -c %s \"$1\") + 16777216 ) / 1024 )) && exec \"$VIRT_COMPACT\" "
      "compact -q -c \"$1\"",
      {disk});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK((states_of(folder, disk) == states));

  // It may not grow at all: the image is sound.
  const std::string full = make_disk(folder);
  const auto failed = tool_test::run_script(
      "ulimit -f $(( ( $(stat -c %s \"$1\") + 1023 ) / 1024 )) && trap '' XFSZ && exec "
      "\"$VIRT_COMPACT\" compact -q -c \"$1\"",
      {full});
  INFO(failed.describe());
  CHECK(failed.exit_code == 1);
  CHECK_THAT(failed.err, Contains("its content is unchanged"));
  CHECK_THAT(failed.err, Contains("16 MiB of free space"));
  const auto check = support::run({"qemu-img", "check", "-q", full});
  CHECK((check.exit_code == 0 || check.exit_code == 3));
  CHECK((states_of(folder, full) == states));
}

TEST_CASE("compact --compress refuses images that cannot be compressed", "[compact]") {
  const support::TempDirectory folder;
  const auto refuses = [](std::vector<std::string> words, const std::string& why) {
    const auto before = support::read_file(words.back());
    words.insert(words.begin(), "compact");
    const auto outcome = run_tool(words);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains(why));
    CHECK((support::read_file(words.back()) == before));
  };
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "refcount_bits=8", disk, "1M"});
  refuses({"-c", disk}, "refcounts have 8 bits");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"});
  refuses({"--compression=zstd", disk}, "its header says zlib");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + (folder / "data"), disk,
          "1M"});
  refuses({"-c", disk}, "external data file");
  tool_test::create_luks(disk, "1M");
  refuses({"-c", "--dry-run", disk}, "it is encrypted");
  CHECK(run_tool({"compact", "--compression=none", disk}).exit_code != 0);
  CHECK(run_tool({"compact", "--threads=2", disk}).exit_code != 0);
}
