// Tests how optimize decides that a disk is compact, and stops early.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
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

// A disk of 64 MiB, half of it data. A quarter of the data is stored zeros.
std::string make_disk(const TempDirectory& folder, const std::string& name) {
  const std::string path = folder / name;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "64M"});
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  for (int i = 31; i >= 0; --i) {
    command.emplace_back("-c");
    command.push_back("write -q -P " + std::to_string(i % 4 == 0 ? 0 : i + 1) + " " +
                      std::to_string(2 * i) + "M 1M");
  }
  command.push_back(path);
  run_ok(command);
  return path;
}

size_t files_in(const std::string& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator{}));
}

support::Outcome optimize(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{"optimize", "--no-trim"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_tool(command);
}

std::string refused(const std::vector<std::string>& arguments) {
  const auto outcome = optimize(arguments);
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  return outcome.err;
}

// Returns the report on the only disk.
json report(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "--json");
  const auto outcome = optimize(arguments);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out).at("disks").at(0);
}

json check_of(const std::string& image) {
  return json::parse(run_ok({"qemu-img", "check", "--output=json", image}).out);
}

}  // namespace

TEST_CASE("a wrong name changes none of the disks", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const auto old = support::read_file(disk);
  CHECK_THAT(refused({disk, folder / "out"}),
             Contains("out: No such file or directory: nothing was changed") &&
                 Contains("optimize -o " + folder / "out"));
  CHECK_THAT(refused({disk, "cluster_size=1M"}), Contains("use --options cluster_size=1M"));
  CHECK_THAT(refused({disk, "/dev/null"}), Contains("not a regular file"));
  fs::create_symlink("disk", folder / "link");
  CHECK_THAT(refused({disk, folder / "link"}), Contains("is the same file as"));
  CHECK_THAT(refused({disk, disk}), Contains("is given twice"));
  CHECK((support::read_file(disk) == old));

  // -o has another meaning in virt-sparsify and qemu-img, and --output in other commands.
  support::RunOptions here;
  here.directory = folder.path();
  for (const std::string& word : std::vector<std::string>{"cluster_size=1M", "qcow2", "raw"}) {
    const auto outcome =
        support::run({tool_test::virt_compact(), "optimize", "--no-trim", "-o", word, disk}, here);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("'" + word + "' is in the place of OUT"));
    CHECK(files_in(folder.path()) == 2);
  }
  const auto done = optimize({"--output=json", "-o", folder / "out", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(json::parse(done.out)["disks"][0]["result"] == folder / "out");
  CHECK((support::read_file(disk) == old));
}

TEST_CASE("options of virt-sparsify are accepted, or refused with advice", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const auto out = optimize(
      {"--compress", "--convert", "qcow2", "--tmp", folder.path(), "-o", folder / "out", disk});
  INFO(out.describe());
  REQUIRE(out.ok());
  run_ok({"qemu-img", "compare", "-q", disk, folder / "out"});
  CHECK(fs::file_size(folder / "out") < 1 << 20);
  REQUIRE(optimize({"--convert", "raw", "-o", folder / "raw", disk}).ok());
  run_ok({"qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", disk, folder / "raw"});
  CHECK_THAT(refused({"--zero", "/dev/sda1", disk}), Contains("--zero: would destroy"));
  CHECK_THAT(refused({"--tmp", folder / "none", disk}), Contains("is not a folder"));
  // The overlay is made there, and takes the place of no other file.
  fs::create_directory(folder / "tmp");
  support::write_file(folder / "tmp/.disk.overlay", "mine");
  CHECK_THAT(refused({"--trim=appliance", "--tmp", folder / "tmp", disk}),
             Contains(folder / "tmp/.disk.overlay: exists, and was not made by this command"));
  CHECK_THAT(refused({"--in-place", "-o", folder / "two", disk}), Contains("--in-place"));
  for (const std::vector<std::string>& words : {std::vector<std::string>{"--compress"},
                                                {"--convert", "qcow2"},
                                                {"--zero", "/dev/sda1"},
                                                {"-o", "compat=1.1"},
                                                {"--tmp", "/var/tmp"}}) {
    std::vector<std::string> command{"trim"};
    command.insert(command.end(), words.begin(), words.end());
    command.push_back(disk);
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("virt-compact: error: " + words.front() + ": "));
    CHECK_THAT(outcome.out, !Contains("Opening"));
  }
}

TEST_CASE("compressed data stays compressed, and other data uncompressed", "[optimize]") {
  const TempDirectory folder;
  const std::string type = GENERATE("zlib", "zstd");
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=" + type,
          make_disk(folder, "plain"), disk});
  // The guest has written plain clusters meanwhile, partly over compressed ones.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 99 2M 128k", "-c", "write -q -P 7 41M 1M",
          disk});
  const json before = check_of(disk);
  const auto done = optimize({"--force", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  const json after = check_of(disk);
  CHECK(after["compressed-clusters"] == before["compressed-clusters"]);
  CHECK(after["allocated-clusters"] == before["allocated-clusters"]);
  CHECK(after["compressed-clusters"] > 300);
  CHECK(after["allocated-clusters"] > after["compressed-clusters"]);
  run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});
  const json info = json::parse(run_ok({"qemu-img", "info", "--output=json", disk}).out);
  CHECK(info["format-specific"]["data"]["compression-type"] == type);

  REQUIRE(optimize({"-q", "--compression=none", "-o", folder / "none", disk}).ok());
  CHECK_FALSE(check_of(folder / "none").contains("compressed-clusters"));
  REQUIRE(optimize({"-q", "-c", "-o", folder / "all", disk}).ok());
  const json all = check_of(folder / "all");
  CHECK(all["compressed-clusters"] == all["allocated-clusters"]);
  // With another cluster size, clusters that were compressed in part stay compressed. Version 2 has
  // no Zstandard.
  REQUIRE(optimize({"-q", "--options", "compat=0.10,cluster_size=128k", "-o", folder / "old", disk})
              .ok());
  run_ok({"qemu-img", "compare", "-q", disk, folder / "old"});
  REQUIRE(optimize({"-q", "--options", "compat=0.10", "-o", folder / "older", disk}).ok());
  CHECK(check_of(folder / "older")["compressed-clusters"] == before["compressed-clusters"]);
  run_ok({"qemu-img", "compare", "-q", disk, folder / "older"});
  CHECK(check_of(folder / "old")["compressed-clusters"] > 150);
}

TEST_CASE("a disk that is already compact is not changed", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  REQUIRE(optimize({"-q", "--no-backup", disk}).ok());
  const auto old = support::read_file(disk);
  const auto again = optimize({disk});
  INFO(again.describe());
  CHECK(again.ok());
  CHECK_THAT(again.out, Contains("Already compact: a fresh image would save ") &&
                            Contains("Nothing was changed: use --force"));
  const json told = report({disk});
  CHECK(told["already-compact"] == true);
  CHECK(told["result"] == disk);
  CHECK_FALSE(told.contains("backup"));
  CHECK(told["after"] == told["before"]);
  CHECK((support::read_file(disk) == old));
  CHECK(files_in(folder.path()) == 1);

  // Frees 1 of 24 MiB.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 0 2M 1M", disk});
  CHECK_THAT(optimize({"--minimum-gain", "10%", disk}).out, Contains("Already compact"));
  CHECK_THAT(optimize({"--minimum-gain", "2M", disk}).out, Contains("Already compact"));
  CHECK(files_in(folder.path()) == 1);
  CHECK_THAT(refused({"--minimum-gain", "1M", "--force", disk}), Contains("--minimum-gain"));
  SECTION("by default, the gain suffices") {
    CHECK_THAT(optimize({disk}).out, Contains("Saved"));
  }
  SECTION("a limit in percent") {
    CHECK_THAT(optimize({"--minimum-gain", "3%", disk}).out, Contains("Saved"));
  }
  SECTION("a limit in bytes") {
    CHECK_THAT(optimize({"--minimum-gain", "512k", disk}).out, Contains("Saved"));
  }
  SECTION("no limit, or another layout") {
    CHECK(optimize({"-q", "--force", disk}).ok());
    CHECK(optimize({"-q", "--backup", ".2", "--minimum-gain", "0", disk}).ok());
    CHECK(optimize({"-q", "--backup", ".3", "--cluster-size", "4k", disk}).ok());
    CHECK(fs::exists(disk + ".3"));
  }
  CHECK(fs::exists(disk + ".bak"));
}

TEST_CASE("a fragmented image is rewritten even if it does not become smaller", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "256M"});
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  for (int i = 31; i >= 0; --i) {
    command.emplace_back("-c");
    command.push_back("write -q -P 5 " + std::to_string(4 * i) + "M 2M");
  }
  command.push_back(disk);
  run_ok(command);
  const json forecast = report({"--dry-run", disk});
  INFO(forecast.dump());
  CHECK(forecast["already-compact"] == false);
  CHECK(forecast["estimate"]["scattered-percent"] > 1);
  // An explicit limit applies to blocks.
  CHECK_THAT(optimize({"--minimum-gain", "1%", disk}).out, Contains("Already compact"));
  const auto done = optimize({disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK_THAT(done.out, Contains("About as much on the disk"));
  run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});
}

TEST_CASE("a dry run counts the bitmaps and snapshots that the result keeps", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  run_ok({"qemu-img", "bitmap", "--add", "-g", "512", disk, "since"});
  run_ok({"qemu-img", "snapshot", "-c", "then", disk});
  run_ok({"qemu-io", "-c", "write -q -P 99 1M 3M", disk});
  const uint64_t expected = report({"--dry-run", disk})["estimate"]["expected"];
  const json less = report({"--dry-run", "--drop-bitmaps", disk});
  CHECK(less["estimate"]["expected"] < expected);
  const json least = report({"--dry-run", "--drop-snapshots", disk});
  CHECK(least["estimate"]["expected"] < expected - (1 << 19));
  REQUIRE(optimize({"-q", disk}).ok());
  CHECK(fs::file_size(disk) == expected);
}

TEST_CASE("a dry run prints the expected result, and changes nothing", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const auto old = support::read_file(disk);
  const auto told = optimize({"--dry-run", disk});
  INFO(told.describe());
  REQUIRE(told.ok());
  CHECK_THAT(told.out, Contains("would save about 7.9") && Contains("(24.6%)") &&
                           Contains("Nothing was changed."));
  const json plain = report({"--dry-run", disk});
  CHECK(plain["dry-run"] == true);
  CHECK_FALSE(plain.contains("after"));
  CHECK(plain["estimate"]["before"] == plain["before"]["actual-size"]);
  const uint64_t expected = plain["estimate"]["expected"];
  const json packed = report({"--dry-run", "-c", "-o", folder / "out", disk});
  CHECK(packed["estimate"]["expected"] < expected / 4);
  // As any other command, with a file for OUT or without.
  const std::string file = folder / "file";
  for (const std::vector<std::string>& how : std::vector<std::vector<std::string>>{
           {"--output=json", "--dry-run", disk},
           {"-o", file, "--output=json", "--dry-run", disk},
           {"--output", "json", "--output", file, "--dry-run", disk}}) {
    const auto outcome = optimize(how);
    INFO(outcome.describe());
    REQUIRE(outcome.ok());
    const json only = json::parse(outcome.out).at("disks").at(0);
    CHECK(only["dry-run"] == true);
    CHECK(only["result"] == (how.size() > 3 ? file : disk));
  }
  CHECK_THAT(refused({"--json", "--output=human", "--dry-run", disk}), Contains("contradicts"));
  // After a stopped run, and in a state in which a run would be refused.
  fs::copy_file(disk, folder / ".disk.fresh");
  CHECK_THAT(optimize({"--dry-run", disk}).err, Contains("was left by a run that was stopped"));
  CHECK(fs::exists(folder / ".disk.fresh"));
  fs::remove(folder / ".disk.fresh");
  support::write_file(disk + ".bak", "mine");
  CHECK_THAT(refused({"--dry-run", disk}), Contains("disk.bak: exists already"));
  fs::remove(disk + ".bak");
  CHECK((support::read_file(disk) == old));
  CHECK(files_in(folder.path()) == 1);
  // The estimate was right.
  REQUIRE(optimize({"-q", disk}).ok());
  CHECK(fs::file_size(disk) == expected);
}

TEST_CASE("contradicting options are refused at the start", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  // The appliance would be used, but is not booted.
  const auto at_once = [&](std::vector<std::string> arguments, const std::string& why) {
    arguments.insert(arguments.begin(), "optimize");
    arguments.push_back(disk);
    const auto outcome = run_tool(arguments);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains(why));
    CHECK_THAT(outcome.out, !Contains("overlay") && !Contains("Booting"));
    CHECK(files_in(folder.path()) == 1);
  };
  const std::string out = folder / "out";
  at_once({"-O", "raw", "-c", "-o", out}, "compression needs QCOW2");
  at_once({"-c", "--options", "compat=0.10,compression_type=zstd"}, "compat");
  at_once({"--options", "extended_l2=on,cluster_size=4k"}, "extended");
  at_once({"--options", "data_file=x", "-c", "-o", out}, "data_file");
  at_once({"-B", "base"}, "base");
  at_once({"--options", "backing_file=disk"}, "is not a backing file of");
  at_once({"-o", folder / "none/out"}, "No such file");
  at_once({"-o", folder.path()}, "not a regular file");
  at_once({"--sector-size", "1k"}, "neither 512 nor 4096");
}

TEST_CASE("names are printed as the user gave them", "[optimize]") {
  const TempDirectory folder;
  (void)make_disk(folder, "disk");
  support::RunOptions here;
  here.directory = folder.path();
  const auto run = [&](std::vector<std::string> words) {
    words.insert(words.begin(), tool_test::virt_compact());
    return support::run(words, here);
  };
  const auto done = run({"optimize", "--no-trim", "disk"});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK_THAT(done.out, Contains("\ndisk -> disk\n") && Contains("which becomes disk.bak\n") &&
                           Contains("the old disk is disk.bak\n") && !Contains(folder.path()));
  const auto again = run({"optimize", "--no-trim", "disk"});
  CHECK_THAT(again.err, Contains("error: disk.bak: exists already") && !Contains(folder.path()));
  const auto old = support::read_file(folder / "disk");
  const auto would = run({"rollback", "--dry-run", "disk"});
  INFO(would.describe());
  CHECK(would.out ==
        "disk would be the old disk again; the current disk would become disk.bak\nNothing was "
        "changed.\n");
  CHECK((support::read_file(folder / "disk") == old));
  CHECK_FALSE(run({"rollback", "--dry-run", "--backup", ".none", "disk"}).ok());
  const auto back = run({"rollback", "disk"});
  INFO(back.describe());
  CHECK(back.out == "disk is the old disk again; the replaced disk is now disk.bak\n");
  // The link leads to another file.
  fs::create_symlink("disk", folder / "link");
  fs::remove(folder / "disk.bak");
  CHECK_THAT(run({"optimize", "--no-trim", "--force", "link"}).out,
             Contains("the old disk is " + folder / "disk.bak"));
}
