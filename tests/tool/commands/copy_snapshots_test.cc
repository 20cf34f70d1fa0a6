// copy, flatten and measure with internal snapshots, as a user runs them.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using nlohmann::json;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace fs = std::filesystem;

namespace {

std::string make_disk(const TempDirectory& folder, const std::string& name,
                      const std::vector<std::string>& create = {}) {
  const std::string path = folder / name;
  std::vector<std::string> command{"qemu-img", "create", "-q", "-f", "qcow2"};
  command.insert(command.end(), create.begin(), create.end());
  command.insert(command.end(), {path, "32M"});
  run_ok(command);
  unsigned pattern = 1;
  for (const char* const snapshot : {"one", "two"}) {
    run_ok({"qemu-io", "-c", fmt::format("write -q -P {} {}M 2M", pattern, pattern), path});
    run_ok({"qemu-img", "snapshot", "-c", snapshot, path});
    ++pattern;
  }
  run_ok({"qemu-io", "-c", "write -q -P 9 1M 1M", path});
  return path;
}

std::string listed(const std::string& image) {
  return run_ok({"qemu-img", "snapshot", "-l", image}).out;
}

std::string refused(const std::vector<std::string>& arguments) {
  const auto outcome = run_tool(arguments);
  INFO(outcome.describe());
  CHECK_FALSE(outcome.ok());
  return outcome.err;
}

// Checks that both images have the same bytes at a snapshot.
void check_same_state(const TempDirectory& folder, const std::string& name, const std::string& a,
                      const std::string& b) {
  std::vector<std::string> raws;
  for (const std::string& image : {a, b}) {
    const std::string applied = image + ".applied";
    run_ok({"cp", image, applied});
    run_ok({"qemu-img", "snapshot", "-a", name, applied});
    raws.push_back(folder / fmt::format("state{}", raws.size()));
    run_ok({"qemu-img", "convert", "-O", "raw", applied, raws.back()});
    fs::remove(applied);
  }
  CHECK_FALSE(support::first_difference(raws[0], raws[1]));
}

}  // namespace

TEST_CASE("copy --with-snapshots copies all, or those that are not dropped", "[copy_command]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const auto all = run_tool({"copy", "--with-snapshots", "--verify", disk, folder / "all"});
  INFO(all.describe());
  REQUIRE(all.ok());
  CHECK(all.err.empty());
  CHECK_THAT(all.out, Contains("snapshots"));
  CHECK(listed(folder / "all") == listed(disk));
  for (const char* const name : {"one", "two"})
    check_same_state(folder, name, disk, folder / "all");

  const auto some = run_tool(
      {"copy", "--json", "--with-snapshots", "--drop-snapshots=one", disk, folder / "some"});
  REQUIRE(some.ok());
  CHECK(json::parse(some.out).at("snapshots").at("count") == 1);
  CHECK_THAT(listed(folder / "some"), !Contains("one") && Contains("two"));
  check_same_state(folder, "two", disk, folder / "some");

  run_ok({"qemu-img", "snapshot", "-c", "a, b", disk});
  const auto two = run_tool(
      {"copy", "-q", "--with-snapshots", "--drop-snapshots=a,, b,one", disk, folder / "two"});
  INFO(two.describe());
  REQUIRE(two.ok());
  CHECK_THAT(listed(folder / "two"), !Contains("a, b") && !Contains("one") && Contains("two"));

  const auto none = run_tool({"copy", "--drop-snapshots", disk, folder / "none"});
  CHECK(none.ok());
  CHECK(none.err.empty());
  CHECK(listed(folder / "none").empty());
}

TEST_CASE("copy --with-snapshots says what it cannot do", "[copy_command]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const std::string to = folder / "copy";
  CHECK_THAT(refused({"copy", "--with-snapshots", "-O", "raw", disk, to}),
             Contains("a raw disk has no snapshots"));
  CHECK_THAT(refused({"copy", "--with-snapshots", disk, "null:"}),
             Contains("a raw disk has no snapshots"));
  CHECK_THAT(refused({"copy", "--with-snapshots", "--snapshot=one", disk, to}),
             Contains("a disk without snapshots"));
  CHECK_THAT(refused({"copy", "--with-snapshots", "--salvage", disk, to}), Contains("--salvage"));
  CHECK_THAT(refused({"copy", "--with-snapshots", "-o", "data_file=data", disk, to}),
             Contains("external data file"));
  CHECK_THAT(refused({"copy", "--with-snapshots", "[", "nbdkit", "null", "]", to}),
             Contains("not from a server or a pipe"));
  CHECK_THAT(refused({"copy", "--with-snapshots", "--drop-snapshots=three", disk, to}),
             Contains("there is no snapshot 'three'"));
  CHECK_THAT(refused({"copy", "--with-snapshots", "--drop-snapshots", disk, to}),
             Contains("exclude each other"));
  CHECK_THAT(refused({"copy", "--drop-snapshots=one", disk, to}), Contains("--with-snapshots"));
  CHECK_THAT(refused({"copy", "--with-snapshots", "-o", "refcount_bits=1", disk, to}),
             Contains("refcount_bits=1 is too small for 2 snapshots"));
  CHECK_FALSE(fs::exists(to));
}

TEST_CASE("an image with snapshots can go to a pipe", "[copy_command]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  run_ok({"sh", "-c", tool_test::virt_compact() + " copy -q --with-snapshots \"$0\" - > \"$1\"",
          disk, folder / "piped"});
  REQUIRE(run_tool({"copy", "-q", "--with-snapshots", disk, folder / "file"}).ok());
  CHECK_FALSE(support::first_difference(folder / "piped", folder / "file"));
  CHECK_THAT(refused({"copy", "--with-snapshots", "--spool=none", disk, "-"}),
             Contains("--spool=none"));
}

TEST_CASE("flatten keeps the snapshots of the overlay", "[flatten]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "24M"});
  run_ok({"qemu-io", "-c", "write -q -P 77 0 20M", folder / "base"});
  const std::string top = make_disk(folder, "top", {"-b", "base", "-F", "qcow2"});
  REQUIRE(run_tool({"flatten", "-q", top, folder / "flat"}).ok());
  CHECK(listed(folder / "flat") == listed(top));
  CHECK_THAT(run_ok({"qemu-img", "info", folder / "flat"}).out, !Contains("backing file"));
  run_ok({"qemu-img", "check", "-q", folder / "flat"});
  for (const char* const name : {"one", "two"})
    check_same_state(folder, name, top, folder / "flat");
  // Data of the backing file is stored once.
  CHECK(fs::file_size(folder / "flat") < 27 << 20);

  REQUIRE(run_tool({"flatten", "-q", "--drop-snapshots=2", top, folder / "one"}).ok());
  CHECK_THAT(listed(folder / "one"), Contains("one") && !Contains("two"));
  REQUIRE(run_tool({"flatten", "-q", "--drop-snapshots", top, folder / "none"}).ok());
  CHECK(listed(folder / "none").empty());
  const auto salvaged = run_tool({"flatten", "-q", "--salvage", top, folder / "salvaged"});
  CHECK(salvaged.ok());
  CHECK_THAT(run_tool({"flatten", "--salvage", "--force", top, folder / "salvaged"}).err,
             Contains("its internal snapshots are not salvaged"));
  CHECK_THAT(refused({"flatten", "--in-place", "--drop-snapshots", top}),
             Contains("virt-compact snapshot -d"));
}

TEST_CASE("a backing file can be kept for all snapshots", "[copy_command]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "base", "24M"});
  run_ok({"qemu-io", "-c", "write -q -P 77 0 20M", folder / "base"});
  const std::string top = make_disk(folder, "top", {"-b", "base", "-F", "qcow2"});
  run_ok({"qemu-io", "-c", "write -q -z 4M 1M", top});
  run_ok({"qemu-img", "snapshot", "-c", "zeros", top});
  run_ok({"qemu-io", "-c", "write -q -P 3 4M 1M", top});
  const auto done = run_tool(
      {"copy", "-q", "--with-snapshots", "--verify", "-B", folder / "base", top, folder / "kept"});
  INFO(done.describe());
  REQUIRE(done.ok());
  run_ok({"qemu-img", "check", "-q", folder / "kept"});
  for (const char* const name : {"one", "two", "zeros"})
    check_same_state(folder, name, top, folder / "kept");
  CHECK(fs::file_size(folder / "kept") < 8 << 20);
}

TEST_CASE("the space that snapshots take is known in advance", "[measure]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  REQUIRE(run_tool({"copy", "-q", "--with-snapshots", disk, folder / "copy"}).ok());
  const auto measured = run_tool({"measure", "--json", "-O", "qcow2", "--with-snapshots", disk});
  INFO(measured.describe());
  REQUIRE(measured.ok());
  CHECK(json::parse(measured.out).at("file-size") == fs::file_size(folder / "copy"));
  const auto without = run_tool({"measure", "--json", "-O", "qcow2", disk});
  CHECK(json::parse(without.out).at("file-size") < fs::file_size(folder / "copy"));
}

// Tables and digests are not held for the whole disk or for all snapshots.
TEST_CASE("a disk of 16 TiB with 10 snapshots needs less than 192 MiB of memory",
          "[copy_command]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "16T"});
  support::Random random(7);
  for (unsigned snapshot = 0; snapshot < 10; ++snapshot) {
    std::string commands;
    for (unsigned i = 0; i < 100; ++i)
      commands += fmt::format("write -q -P {} {} 64k\n", random.between(1, 255),
                              random.below(uint64_t{16} << 24) << 16);
    // Clusters that all states have, with other data in each.
    for (unsigned i = 0; i < 20; ++i)
      commands += fmt::format("write -q -P {} {}G 64k\n", snapshot + 1, i * 700);
    support::RunOptions input;
    input.input = commands;
    run_ok({"qemu-io", "-t", "unsafe", disk}, input);
    run_ok({"qemu-img", "snapshot", "-q", "-c", fmt::format("s{}", snapshot), disk});
  }
  support::RunOptions options;
  options.timeout = std::chrono::minutes(5);
  const auto done = run_tool(
      {"copy", "-q", "-c", "--with-snapshots", "--verify", disk, folder / "copy"}, options);
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(done.peak_memory < 192 << 20);
  run_ok({"qemu-img", "check", "-q", folder / "copy"});
  CHECK(fs::file_size(folder / "copy") < fs::file_size(disk));
}
