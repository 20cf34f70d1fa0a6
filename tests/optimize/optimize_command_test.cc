// Tests virt-compact optimize without an appliance. tests/appliance tests it with one.
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace fs = std::filesystem;

namespace {

// Makes a disk of 64 MiB, half of it scattered data, with a deleted part that was not discarded.
std::string make_disk(const TempDirectory& folder, const std::string& name,
                      const std::string& options = "cluster_size=64k") {
  const std::string path = folder / name;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "64M"});
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

}  // namespace

TEST_CASE("a disk is made smaller, and the old one is kept", "[optimize]") {
  const TempDirectory folder;
  const std::string disk =
      make_disk(folder, "disk", "cluster_size=4k,lazy_refcounts=on,refcount_bits=32");
  REQUIRE(::chmod(disk.c_str(), 0600) == 0);
  const auto old = support::read_file(disk);
  const auto outcome = optimize({"--json", disk});
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  const auto json = nlohmann::json::parse(outcome.out);
  REQUIRE(json["disks"].size() == 1);
  const auto& done = json["disks"][0];
  CHECK(done["result"] == disk);
  CHECK(done["backup"] == disk + ".bak");
  CHECK(done["after"]["actual-size"] < done["before"]["actual-size"]);
  // A quarter of the data is zeros.
  CHECK(done["before"]["allocated-clusters"] == 8192);
  CHECK(done["after"]["allocated-clusters"] == 6144);
  CHECK(done["before"]["actual-size"] == static_cast<uint64_t>([&] {
          struct stat status {};
          ::stat((disk + ".bak").c_str(), &status);
          return status.st_blocks * 512;
        }()));

  CHECK((support::read_file(disk + ".bak") == old));
  run_ok({"qemu-img", "check", "-q", disk});
  run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});
  CHECK(fs::status(disk).permissions() == fs::perms(0600));
  const auto info = nlohmann::json::parse(run_ok({"qemu-img", "info", "--output=json", disk}).out);
  CHECK(info["cluster-size"] == 4096);
  CHECK(info["format-specific"]["data"]["lazy-refcounts"] == true);
  CHECK(info["format-specific"]["data"]["refcount-bits"] == 32);
  CHECK(files_in(folder.path()) == 2);

  // An existing backup is not overwritten.
  CHECK_THAT(refused({disk}), Contains("disk.bak: exists already"));
  CHECK(run_tool({"rollback", "-q", disk}).ok());
  CHECK((support::read_file(disk) == old));
}

TEST_CASE("with OUT, the disk is not changed", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const auto old = support::read_file(disk);
  REQUIRE(optimize({"-q", "-c", "-o", folder / "out", disk}).ok());
  CHECK((support::read_file(disk) == old));
  run_ok({"qemu-img", "compare", "-q", disk, folder / "out"});
  CHECK(files_in(folder.path()) == 2);
  CHECK_THAT(refused({"-o", folder / "out", disk}), Contains("exists already"));
  REQUIRE(optimize({"-q", "--force", "-o", folder / "out", disk}).ok());
}

TEST_CASE("a raw disk stays raw", "[optimize]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "disk", "16M"});
  run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 1 0 4M", "-c", "write -q -P 0 8M 4M",
          folder / "disk"});
  REQUIRE(optimize({"-q", "-f", "raw", folder / "disk"}).ok());
  run_ok({"qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", folder / "disk",
          folder / "disk.bak"});
  struct stat status {};
  REQUIRE(::stat((folder / "disk").c_str(), &status) == 0);
  CHECK(status.st_blocks * 512 < 5 << 20);
}

TEST_CASE("holes in a raw result have the requested size", "[optimize]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "disk", "16M"});
  // Writes zeros to every second 64 KiB.
  std::vector<std::string> command{"qemu-io", "-f", "raw"};
  for (int i = 0; i < 64; ++i) {
    command.emplace_back("-c");
    command.push_back("write -q -P " + std::to_string(i % 2) + " " + std::to_string(64 * i) +
                      "k 64k");
  }
  command.push_back(folder / "disk");
  run_ok(command);
  const auto blocks_with = [&](const char* size) {
    REQUIRE(
        optimize({"-q", "-f", "raw", "-S", size, "--force", "-o", folder / "out", folder / "disk"})
            .ok());
    struct stat status {};
    REQUIRE(::stat((folder / "out").c_str(), &status) == 0);
    return status.st_blocks * 512;
  };
  // The filesystem's map of holes takes some space.
  CHECK(blocks_with("64k") < 3 << 20);
  CHECK(blocks_with("1M") >= 4 << 20);
  CHECK_THAT(run_tool({"optimize", "-S", "3k", folder / "disk"}).err,
             Contains("not a power of two"));
}

TEST_CASE("OUT may be of another format", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const auto done = optimize({"--json", "-O", "raw", "-o", folder / "raw", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  const auto json = nlohmann::json::parse(done.out)["disks"][0];
  CHECK(json["format"] == "raw");
  CHECK(json["before"].contains("allocated-clusters"));
  CHECK_FALSE(json["after"].contains("allocated-clusters"));
  run_ok({"qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", disk, folder / "raw"});
  const auto back =
      optimize({"-f", "raw", "-O", "qcow2", "-c", "-o", folder / "again", folder / "raw"});
  INFO(back.describe());
  REQUIRE(back.ok());
  CHECK_THAT(back.out, !Contains("clusters"));
  run_ok({"qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", disk, folder / "again"});
  const auto alone = run_tool({"optimize", "-O", "raw", disk});
  CHECK(alone.exit_code == 1);
  CHECK_THAT(alone.err, Contains("needs --output"));
}

TEST_CASE("a backing file can be kept", "[optimize]") {
  const TempDirectory folder;
  const std::string base = make_disk(folder, "base");
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", disk});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 200 3M 1M", "-c", "write -q -z 7M 1M", "-c",
          "write -q -P 0 40M 1M", disk});
  const auto old = support::read_file(disk);
  const auto done = optimize({"-B", "base", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK_THAT(done.err, !Contains("no longer needs that file"));
  CHECK((support::read_file(disk + ".bak") == old));
  run_ok({"qemu-img", "check", "-q", disk});
  run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});
  const auto info = nlohmann::json::parse(run_ok({"qemu-img", "info", "--output=json", disk}).out);
  CHECK(info["backing-filename"] == "base");
  CHECK(info["backing-filename-format"] == "qcow2");
  // The base file's data stays in the base file.
  CHECK(fs::file_size(disk) < 4 << 20);
  CHECK(files_in(folder.path()) == 3);

  // A refused run leaves no file.
  make_disk(folder, "other");
  CHECK_THAT(refused({"--backup", ".2", "-B", "other", disk}), Contains("other"));
  CHECK(files_in(folder.path()) == 4);
  const auto plain = optimize({"--backup", ".3", disk});
  CHECK_THAT(plain.err, Contains("no longer needs that file"));
  CHECK_THAT(run_ok({"qemu-img", "info", disk}).out, !Contains("backing"));
}

TEST_CASE("one bad disk does not stop the others", "[optimize]") {
  const TempDirectory folder;
  const std::string first = make_disk(folder, "first");
  const std::string bad = folder / "bad";
  run_ok(
      {"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "missing", "-F", "raw", bad, "1M"});
  const std::string last = make_disk(folder, "last");
  const auto outcome = optimize({"--no-backup", first, bad, last});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.out, Contains("2 of 3 disks"));
  CHECK_THAT(outcome.err, Contains("bad: backing file"));
  CHECK(files_in(folder.path()) == 3);
  run_ok({"qemu-img", "check", "-q", first});
  run_ok({"qemu-img", "check", "-q", last});
}

TEST_CASE("optimize keeps internal snapshots, or those that are not dropped", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  for (const char* const name : {"one", "two"}) {
    run_ok({"qemu-img", "snapshot", "-c", name, disk});
    run_ok({"qemu-io", "-c", std::string("write -q -P ") + (name[0] == 'o' ? "8" : "9") + " 0 3M",
            disk});
  }
  const std::string listed = run_ok({"qemu-img", "snapshot", "-l", disk}).out;
  const auto state = [&](const std::string& image, const std::string& name) {
    const std::string raw = image + "." + name;
    run_ok({"cp", image, raw + ".qcow2"});
    run_ok({"qemu-img", "snapshot", "-a", name, raw + ".qcow2"});
    run_ok({"qemu-img", "convert", "-O", "raw", raw + ".qcow2", raw});
    fs::remove(raw + ".qcow2");
    const auto bytes = support::read_file(raw);
    fs::remove(raw);
    return bytes;
  };
  const auto one = state(disk, "one");
  const auto two = state(disk, "two");
  const auto predicted = optimize({"--dry-run", disk});
  CHECK(predicted.ok());

  const auto done = optimize({disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(done.err.empty());
  run_ok({"qemu-img", "check", "-q", disk});
  run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});
  CHECK(run_ok({"qemu-img", "snapshot", "-l", disk}).out == listed);
  CHECK((state(disk, "one") == one));
  CHECK((state(disk, "two") == two));
  // What the states share is stored once: the disk, and 3 MiB of each snapshot.
  CHECK(fs::file_size(disk) < 33 * (1 << 20));
  // The result is compact.
  CHECK_THAT(optimize({disk}).out, Contains("compact"));

  REQUIRE(optimize({"-q", "--drop-snapshots=one", "--backup=.2", disk}).ok());
  CHECK_THAT(run_ok({"qemu-img", "snapshot", "-l", disk}).out, !Contains("one") && Contains("two"));
  run_ok({"qemu-img", "check", "-q", disk});
  CHECK((state(disk, "two") == two));
}

TEST_CASE("a run that would lose data is refused, and nothing changes", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  SECTION("snapshots") {
    run_ok({"qemu-img", "snapshot", "-c", "s", disk});
    const auto old = support::read_file(disk);
    CHECK_THAT(refused({"-o", folder / "raw", "-O", "raw", disk}),
               Contains("1 internal snapshot, which a raw result cannot have"));
    CHECK_THAT(refused({"--drop-snapshots=s,t", disk}), Contains("there is no snapshot 't'"));
    CHECK((support::read_file(disk) == old));
    CHECK(files_in(folder.path()) == 1);
    CHECK(optimize({"-q", "--drop-snapshots", disk}).ok());
    CHECK(run_ok({"qemu-img", "snapshot", "-l", disk}).out.empty());
  }
  SECTION("corruption") {
    // Makes the first L2 entry point past the end of the file.
    auto bytes = support::read_file(disk);
    const auto be64 = [&](size_t at) {
      uint64_t value = 0;
      for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
      return value;
    };
    const size_t l2 = be64(be64(40)) & 0x00ffffffffffff00;
    bytes[l2 + 2] = std::byte{0x7f};
    support::write_file(disk, bytes);
    CHECK_THAT(refused({disk}), Contains("the image is damaged"));
    CHECK((support::read_file(disk) == bytes));
    CHECK(files_in(folder.path()) == 1);
  }
  SECTION("corruption that can be repaired") {
    auto bytes = support::read_file(disk);
    const auto be64 = [&](size_t at) {
      uint64_t value = 0;
      for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
      return value;
    };
    const size_t l2 = be64(be64(40)) & 0x00ffffffffffff00;
    bytes[l2] &= std::byte{0x7f};  // COPIED
    support::write_file(disk, bytes);
    CHECK_THAT(refused({disk}), Contains("--repair"));
    CHECK((support::read_file(disk) == bytes));
    const auto outcome = optimize({"--repair", disk});
    INFO(outcome.describe());
    CHECK(outcome.ok());
    CHECK_THAT(outcome.err, Contains("1 corruptions and 0 leaks were repaired"));
    run_ok({"qemu-img", "check", "-q", disk});
    run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});
    CHECK(fs::exists(disk + ".undo"));
  }
  SECTION("a disk in use") {
    const std::string socket = folder / "socket";
    const support::Child server({"qemu-nbd", "-f", "qcow2", "-t", "-k", socket, disk},
                                folder / "log");
    support::wait_for_greeting(socket);
    CHECK_THAT(refused({disk}), Contains("in use by qemu-nbd"));
  }
}

TEST_CASE("a run that is killed leaves the old disk or the new one", "[optimize]") {
  const uint64_t rounds = support::iterations(8);
  for (uint64_t i = 0; i < rounds; ++i) {
    const uint64_t seed = support::base_seed() + i;
    CAPTURE(seed);
    support::Random random(seed);
    const TempDirectory folder;
    const std::string disk = make_disk(folder, "disk");
    const auto old = support::read_file(disk);
    const bool softly = random.chance(30);
    {
      support::Child child({tool_test::virt_compact(), "optimize", "--no-trim", disk}, "/dev/null");
      std::this_thread::sleep_for(std::chrono::milliseconds(random.below(120)));
      if (softly)
        ::kill(child.pid(), SIGINT);
      else
        child.kill();
      while (child.running()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    const bool swapped = support::read_file(disk) != old;
    if (swapped) {
      CHECK((support::read_file(disk + ".bak") == old));
      run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});
      run_ok({"qemu-img", "check", "-q", disk});
    } else if (softly) {
      CHECK(files_in(folder.path()) == 1);
    }
    // The next run succeeds.
    const auto again = optimize({"--force", "--backup", swapped ? ".second" : ".bak", disk});
    INFO(again.describe());
    REQUIRE(again.ok());
    run_ok({"qemu-img", "check", "-q", disk});
    CHECK(files_in(folder.path()) == (swapped ? 3 : 2));
  }
}

TEST_CASE("the destination is checked before anything is written", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  support::write_file(folder / "plain", std::string(64 << 20, 'p'));
  const support::NbdServer server = support::NbdServer::nbdkit({"file", folder / "plain"});
  CHECK_THAT(refused({"-q", "-O", "raw", "-o", server.uri(), disk}), Contains("must be a file"));
  CHECK_THAT(refused({"-q", "--force", "-o", "/dev/null", disk}), Contains("not a regular file"));
  CHECK(fs::exists("/dev/null"));
  CHECK_THAT(refused({"-q", "-o", "-", disk}), Contains("must be a file"));
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  CHECK_THAT(refused({"-q", "--force", "-o", folder / "fifo", disk}),
             Contains("not a regular file"));
  CHECK(fs::exists(folder / "fifo"));
  CHECK((support::read_file(folder / "plain") ==
         std::vector<std::byte>(64 << 20, static_cast<std::byte>('p'))));
  CHECK_THAT(refused({"-q", "--options", "data_file=data", disk}), Contains("--output"));
  CHECK_FALSE(fs::exists(folder / "data"));
}

TEST_CASE("a symbolic link must lead to the same backing files", "[optimize]") {
  const TempDirectory folder;
  fs::create_directories(folder / "a");
  fs::create_directories(folder / "b");
  for (const char* where : {"a", "b"}) {
    const std::string base = folder / where + "/base";
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", base, "1M"});
    run_ok({"qemu-io", "-f", "qcow2", "-c",
            std::string("write -q -P ") + (*where == 'a' ? "170" : "187") + " 0 1M", base});
  }
  const std::string disk = folder / "b/disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base", disk});
  fs::create_symlink("../b/disk", folder / "a/disk");
  const auto old = support::read_file(disk);
  CHECK_THAT(refused({folder / "a/disk"}), Contains("has other backing files"));
  CHECK((support::read_file(disk) == old));
  // A link to the folder leads to the same disk and the same backing file.
  fs::create_symlink("b", folder / "c");
  REQUIRE(optimize({"-q", folder / "c/disk"}).ok());
  run_ok({"qemu-io", "-f", "qcow2", "-c", "read -P 187 0 1M", disk});
}

TEST_CASE("changes of a process without a lock are not overwritten", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const bool replaced = GENERATE(false, true);
  support::Child child({tool_test::virt_compact(), "optimize", "--no-trim", "--no-backup", "-q",
                        "--rate-limit=16M", disk},
                       folder / "log");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  REQUIRE(child.running());
  if (replaced) {
    fs::copy_file(disk, folder / "other");
    fs::rename(folder / "other", disk);
  } else {
    std::filesystem::resize_file(disk, fs::file_size(disk) + 4096);
  }
  const auto now = support::read_file(disk);
  while (child.running()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto log = support::read_file(folder / "log");
  CHECK_THAT(std::string(reinterpret_cast<const char*>(log.data()), log.size()),
             replaced ? Contains("is no longer the file") : Contains("has written to it"));
  CHECK((support::read_file(disk) == now));
  CHECK(files_in(folder.path()) == 2);
}

TEST_CASE("a file with the name of a leftover is kept if it is something else", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const char* const name = GENERATE(".disk.overlay", ".disk.fresh");
  SECTION("a file that is not an image") {
    support::write_file(folder / name, "mine");
    CHECK_THAT(refused({disk}), Contains("was not made by this command"));
    CHECK(fs::file_size(folder / name) == 4);
  }
  SECTION("an image") {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk, folder / name,
            "65M"});
    CHECK_THAT(refused({disk}), Contains("was not made by this command"));
    CHECK(fs::exists(folder / name));
  }
}

TEST_CASE("a failed swap does not change the disk", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  support::Child child(
      {tool_test::virt_compact(), "optimize", "--no-trim", "-q", "--rate-limit=16M", disk},
      folder / "log");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  REQUIRE(child.running());
  // Another file gets the backup's name meanwhile.
  support::write_file(disk + ".bak", "mine");
  const auto old = support::read_file(disk);
  while (child.running()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK((support::read_file(disk) == old));
  CHECK(fs::file_size(disk + ".bak") == 4);
  CHECK(files_in(folder.path()) == 3);
}

TEST_CASE("the fresh image of a user's disk is never accessible to other users", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk, folder / "top"});
  REQUIRE(::chmod((folder / "top").c_str(), 0600) == 0);
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 32M", folder / "top"});
  support::Child child({tool_test::virt_compact(), "optimize", "--no-trim", "--force", "-q", "-B",
                        disk, "-F", "qcow2", "--rate-limit=40M", folder / "top"},
                       folder / "log");
  size_t seen = 0;
  while (child.running()) {
    struct stat status {};
    if (::stat((folder / ".top.fresh").c_str(), &status) == 0) {
      ++seen;
      CHECK((status.st_mode & 077) == 0);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(seen > 0);
  run_ok({"qemu-img", "compare", "-q", folder / "top", folder / "top.bak"});
}

TEST_CASE("a run that cannot set the owner of the result fails at the start", "[optimize]") {
  if (::geteuid() != 0) {
    WARN("skipped: only root can become another user");
    return;
  }
  const TempDirectory folder;
  REQUIRE(::chmod(folder.path().c_str(), 0777) == 0);
  const std::string disk = make_disk(folder, "disk");
  REQUIRE(::chmod(disk.c_str(), 0644) == 0);
  // Copies the command to a place where another user can run it.
  fs::copy_file(tool_test::virt_compact(), folder / "program");
  REQUIRE(::chmod((folder / "program").c_str(), 0755) == 0);
  const auto outcome = support::run({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                     folder / "program", "optimize", "--no-trim", "-q", disk});
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("with the owner of the disk, 0:0"));
  CHECK(files_in(folder.path()) == 2);
}

TEST_CASE("disks on a filesystem without hard links are optimized, too", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const auto old = support::read_file(disk);
  const std::string how = GENERATE("", "VIRT_COMPACT_NO_FLAGS=1 ");
  const std::string run = how +
                          "ASAN_OPTIONS=verify_asan_link_order=0 "
                          "LD_PRELOAD=\"$VIRT_COMPACT_NO_LINKS\" \"$VIRT_COMPACT\" ";
  const auto copied = tool_test::run_script(run + "copy -q \"$1\" \"$2\"", {disk, folder / "copy"});
  INFO(copied.describe());
  REQUIRE(copied.ok());
  run_ok({"qemu-img", "compare", "-q", disk, folder / "copy"});
  // An existing file is not replaced.
  CHECK_FALSE(tool_test::run_script(run + "copy -q \"$1\" \"$2\"", {disk, folder / "copy"}).ok());
  CHECK(files_in(folder.path()) == 2);
  const auto done = tool_test::run_script(run + "optimize --no-trim -q \"$1\"", {disk});
  INFO(done.describe());
  if (how.empty()) {
    REQUIRE(done.ok());
    CHECK((support::read_file(disk + ".bak") == old));
    run_ok({"qemu-img", "compare", "-q", disk, disk + ".bak"});
    CHECK(files_in(folder.path()) == 3);
  } else {
    // Even without an atomic exchange, one of the two files has the name at any moment.
    CHECK_FALSE(done.ok());
    CHECK((support::read_file(disk) == old));
    CHECK(files_in(folder.path()) == 2);
  }
}

TEST_CASE("options of trimming are refused without trimming", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  for (const std::vector<std::string>& option :
       {std::vector<std::string>{"--drop", "swap"}, {"--ignore", "sda1"}, {"--rate-limit", "0"}}) {
    std::vector<std::string> arguments = option;
    arguments.push_back(disk);
    const auto outcome = optimize(arguments);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("Try 'virt-compact optimize --help'"));
  }
}

TEST_CASE("the backing file of other images is not trimmed", "[optimize]") {
  const TempDirectory folder;
  const std::string base = make_disk(folder, "base");
  fs::create_directory(folder / "elsewhere");
  fs::create_symlink(base, folder / "elsewhere/link");
  const std::string top = folder / GENERATE("top", "elsewhere/top");
  const bool beside = fs::path(top).parent_path() == folder.path();
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
          beside ? std::string("base") : std::string("link"), top});
  const auto old = support::read_file(base);
  SECTION("in the same folder, or in the same call") {
    std::vector<std::string> command{"optimize", "-q", base};
    if (!beside) {
      // `top` itself is refused because of its snapshot.
      run_ok({"qemu-img", "snapshot", "-c", "s", top});
      command.push_back(top);
    }
    const auto outcome = run_tool(command);
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("is the backing file of"));
    if (beside) {
      const auto trimmed = run_tool({"trim", base});
      CHECK(trimmed.exit_code == 1);
      CHECK_THAT(trimmed.err, Contains("is the backing file of"));
    }
  }
  SECTION("in use") {
    const std::string socket = folder / "socket";
    const support::Child server({"qemu-nbd", "-f", "qcow2", "-t", "-k", socket, top},
                                folder / "log");
    support::wait_for_greeting(socket);
    const auto outcome = run_tool({"optimize", "-q", base});
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("in use by qemu-nbd"));
  }
  CHECK((support::read_file(base) == old));
  CHECK_FALSE(fs::exists(base + ".bak"));
  // Without a trim, the overlays do not change.
  REQUIRE(optimize({"-q", base}).ok());
}

TEST_CASE("in another user's folder, root does not change the owner of its own files",
          "[optimize]") {
  if (::geteuid() != 0) {
    WARN("skipped: it takes root to give files away");
    return;
  }
  const TempDirectory folder;
  const std::string disk = make_disk(folder, "disk");
  const std::string victim = folder / "victim";
  const std::string fresh = folder / ".disk.fresh";
  support::write_file(victim, std::string("secret"));
  REQUIRE(::chmod(victim.c_str(), 0600) == 0);
  REQUIRE(::chown(disk.c_str(), 12345, 12345) == 0);
  REQUIRE(::chown(folder.path().c_str(), 12345, 12345) == 0);
  // Acts as the other user: puts a link in the place of the result as soon as it has its name.
  std::atomic<bool> done = false;
  std::thread planter([&] {
    std::error_code ignored;
    while (!done) {
      if (!fs::exists(fs::symlink_status(fresh, ignored))) continue;
      fs::create_symlink("victim", folder / "link", ignored);
      fs::rename(folder / "link", fresh, ignored);
      return;
    }
  });
  const auto outcome = optimize({"-q", disk});
  done = true;
  planter.join();
  INFO(outcome.describe());
  struct stat status {};
  REQUIRE(::stat(victim.c_str(), &status) == 0);
  CHECK(status.st_uid == 0);
  CHECK((status.st_mode & 07777) == 0600);
  CHECK(support::read_file(victim).size() == 6);
  // If the link is planted between the last check of the name and the rename, the link gets the
  // disk's name. That is an error, and the disk is the backup.
  const bool planted_last = fs::is_symlink(fs::symlink_status(disk));
  if (planted_last) CHECK_FALSE(outcome.ok());
  run_ok({"qemu-img", "check", "-q", planted_last ? disk + ".bak" : disk});
}
