// virt-compact compact of an image that has lost a table: its data stays where it is.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/byte_order.h"
#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/compact/compact_run.h"

using namespace vc;

namespace {

using Catch::Contains;
using compact_test::summary;
using nlohmann::json;
using support::run_ok;
using tool_test::run_tool;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 64 << 10;

// Returns the place of the first L2 table.
uint64_t first_table(const std::string& disk) {
  const auto bytes = support::read_file(disk);
  const uint64_t l1 = load_be64(&bytes[40]);
  return load_be64(&bytes[l1]) & 0x00fffffffffffe00;
}

// Three MiB at 0, at 100 MiB (discarded), and behind another table at 600 MiB.
std::string make_disk(const support::TempDirectory& folder) {
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"});
  run_ok({"qemu-io", "-f", "qcow2", "-d", "unmap", "-c", "write -q -P 1 0 3M", "-c",
          "write -q -P 2 100M 3M", "-c", "write -q -P 3 600M 3M", "-c", "discard -q 100M 3M",
          disk});
  return disk;
}

}  // namespace

TEST_CASE("compact keeps in place what a lost table has referred to", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before"});
  const uint64_t before = std::filesystem::file_size(disk);
  const uint64_t table = first_table(disk);
  auto bytes = support::read_file(disk);
  const std::vector<std::byte> entries(bytes.begin() + static_cast<ptrdiff_t>(table),
                                       bytes.begin() + static_cast<ptrdiff_t>(table + kCluster));
  support::patch_file(disk, table, std::vector<std::byte>(kCluster));
  REQUIRE(support::run({"qemu-img", "check", "-q", disk}).exit_code == 3);

  const json predicted = summary(run_tool({"measure", "--in-place", "--json", disk}));
  CHECK(predicted["leaks"] == 0);
  CHECK(predicted["leaks-left"] == 3 * kMiB / kCluster);
  const std::string level = GENERATE("--shrink", "--defragment");
  const auto outcome = run_tool({"compact", level, disk});
  INFO(outcome.describe());
  CHECK(outcome.ok());
  CHECK_THAT(outcome.err, Contains("48 leaked clusters stay where they are"));
  CHECK_THAT(outcome.err, Contains("--lossy"));
  CHECK_THAT(outcome.out, Contains("leaks left          48  clusters stay"));
  CHECK(std::filesystem::file_size(disk) == predicted["after"]["length"]);
  CHECK(std::filesystem::file_size(disk) + 3 * kMiB <= before);
  CHECK(support::run({"qemu-img", "check", "-q", disk}).exit_code == 3);
  const json again = summary(run_tool({"compact", level, "--json", disk}));
  CHECK(again["moved"] == 0);

  // The entries lead to their data, as before.
  support::patch_file(disk, first_table(disk), entries);
  run_ok({"qemu-img", "check", "-q", disk});
  run_ok({"qemu-img", "compare", "-q", disk, "-F", "raw", folder / "before"});
}

TEST_CASE("compact compresses around clusters that have leaked", "[compact]") {
  const support::TempDirectory folder;
  const std::string disk = make_disk(folder);
  const uint64_t table = first_table(disk);
  support::patch_file(disk, table, std::vector<std::byte>(kCluster));
  run_ok({"qemu-img", "convert", "-O", "raw", disk, folder / "before"});
  const json predicted = summary(run_tool({"compact", "-c", "--dry-run", "--json", disk}));
  const json done = summary(run_tool({"compact", "-c", "--json", disk}));
  CHECK(done["leaks-left"] == 3 * kMiB / kCluster);
  CHECK(done["compressed"].get<uint64_t>() >= 2 * kMiB);
  CHECK(done["after"]["length"].get<uint64_t>() >= 3 * kMiB);
  CHECK(done["after"]["length"].get<uint64_t>() < 4 * kMiB + kMiB / 2);
  CHECK(predicted["after"]["length"].get<uint64_t>() <= done["after"]["length"].get<uint64_t>());
  run_ok({"qemu-img", "compare", "-q", disk, "-F", "raw", folder / "before"});
  CHECK(support::run({"qemu-img", "check", "-q", disk}).exit_code == 3);
}
