// Stops optimize and rollback at any moment, and checks the disk.
#include <fmt/format.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using support::Outcome;
using support::Random;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace fs = std::filesystem;

namespace {

constexpr unsigned kDiskMiB = 48;

// Makes a disk with scattered clusters, some of them zeros. Optimizing changes all of it.
void make_disk(const std::string& path, uint64_t seed, unsigned mebibytes = kDiskMiB) {
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, fmt::format("{}M", mebibytes)});
  Random random(seed);
  std::vector<std::string> command{"qemu-io", "-t", "unsafe", "-f", "qcow2"};
  for (unsigned i = 0; i < mebibytes; ++i) {
    command.emplace_back("-c");
    command.push_back(fmt::format("write -q -P {} {}k 700k",
                                  random.chance(30) ? 0 : random.between(1, 255),
                                  random.below(mebibytes - 1) * 1024));
  }
  command.push_back(path);
  run_ok(command);
}

Outcome optimize(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"optimize", "--no-trim"});
  return run_tool(arguments);
}

// Returns what is wrong with an image that should hold the same disk as `reference`. Empty:
// nothing.
std::string complaint(const std::string& image, const std::string& reference) {
  const auto check = support::run({"qemu-img", "check", "-f", "qcow2", image});
  if (!check.ok()) return check.describe();
  const auto compare =
      support::run({"qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", image, reference});
  if (!compare.ok()) return compare.describe();
  if (run_ok({"qemu-img", "snapshot", "-l", image}).out !=
      run_ok({"qemu-img", "snapshot", "-l", reference}).out)
    return "the list of snapshots differs";
  const TempDirectory scratch;
  for (const auto& [from, to] : {std::pair(image, "a"), std::pair(reference, "b")})
    run_ok({"qemu-img", "convert", "-l", "then", "-O", "raw", from, scratch / to});
  return support::first_difference(scratch / "a", scratch / "b") ? "the snapshot differs" : "";
}

// Returns the names in a folder, without hidden ones.
std::vector<std::string> visible(const TempDirectory& folder) {
  auto names = support::list_directory(folder.path());
  std::erase_if(names, [](const std::string& name) { return name.starts_with("."); });
  return names;
}

// Runs the command, and sends `signal` after `delay`. Returns true if the signal came in time.
bool stop_after(const std::vector<std::string>& arguments, int signal,
                std::chrono::microseconds delay, const std::string& log) {
  std::vector<std::string> command{tool_test::virt_compact()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  support::Child child(command, log);
  std::this_thread::sleep_for(delay);
  const bool in_time = child.running() && ::kill(child.pid(), signal) == 0;
  const auto start = std::chrono::steady_clock::now();
  while (child.running()) {
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(60))
      throw std::runtime_error("it does not end");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return in_time;
}

}  // namespace

TEST_CASE("leaked clusters are not copied", "[optimize]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  make_disk(disk, 4);
  // May leave a fresh cluster at the end, with a refcount but without a reference.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q 0 64k", disk});
  const auto bytes = support::read_file(disk);
  uint64_t l1 = 0;
  for (unsigned i = 0; i < 8; ++i) l1 = l1 << 8 | static_cast<uint64_t>(bytes[40 + i]);
  const std::vector<std::byte> nothing(8);
  support::patch_file(disk, l1, nothing);
  REQUIRE(support::run({"qemu-img", "check", "-q", disk}).exit_code == 3);
  const auto done = optimize({"--json", disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(json::parse(done.out).at("disks").at(0).at("before").at("leaks") > 0);
  CHECK(support::run({"qemu-img", "check", "-q", disk}).ok());
}

TEST_CASE("a run that is stopped at any moment leaves the disk, and the next run works",
          "[optimize]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  Random random(seed);
  const TempDirectory originals;
  const std::string original = originals / "original";
  make_disk(original, seed);
  run_ok({"qemu-img", "snapshot", "-c", "then", original});
  run_ok({"qemu-io", "-t", "unsafe", "-c", "write -q -P 201 3M 5M", "-c", "write -q -P 202 30M 8M",
          original});

  // Measures the duration, to stop the command earlier.
  std::chrono::duration<double> whole{};
  {
    const TempDirectory folder;
    fs::copy_file(original, folder / "disk");
    const auto done = optimize({folder / "disk"});
    REQUIRE(done.ok());
    whole = done.elapsed;
  }
  unsigned stopped = 0;
  const uint64_t rounds = support::iterations(24);
  for (uint64_t round = 0; round < rounds; ++round) {
    const int signal = random.pick(std::vector<int>{SIGKILL, SIGKILL, SIGKILL, SIGINT, SIGTERM});
    const bool backup = random.chance(70);
    const auto delay =
        std::chrono::microseconds(random.below(static_cast<uint64_t>(whole.count() * 1.1e6) + 1));
    CAPTURE(round, signal, backup, delay.count());
    const TempDirectory folder;
    const std::string disk = folder / "disk";
    fs::copy_file(original, disk);
    std::vector<std::string> arguments{"optimize", "--no-trim"};
    if (!backup) arguments.emplace_back("--no-backup");
    arguments.push_back(disk);
    stopped += stop_after(arguments, signal, delay, originals / "log");

    CHECK(complaint(disk, original) == "");
    const bool is_original = fs::file_size(disk) == fs::file_size(original);
    if (is_original) {
      CHECK(support::read_file(disk) == support::read_file(original));
    } else if (backup) {
      // The swap has taken place.
      CHECK(support::read_file(disk + ".bak") == support::read_file(original));
    }
    // After a request to stop, the command removes all of its files.
    if (signal != SIGKILL)
      CHECK(support::list_directory(folder.path()).size() == (is_original || !backup ? 1 : 2));

    const auto again = optimize({"--force", "--backup", ".again", disk});
    INFO(again.describe());
    REQUIRE(again.ok());
    CHECK(complaint(disk, original) == "");
    CHECK(visible(folder).size() <= 3);
    CHECK_FALSE(fs::exists(folder / ".disk.fresh"));
  }
  CHECK(stopped > rounds / 4);
}

TEST_CASE("a rollback that is stopped leaves both disks", "[optimize]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  Random random(seed);
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  make_disk(disk, seed, 4);
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk + ".bak", "1M"});
  const auto one = support::read_file(disk);
  const auto other = support::read_file(disk + ".bak");
  const uint64_t rounds = support::iterations(40);
  for (uint64_t round = 0; round < rounds; ++round) {
    const auto delay = std::chrono::microseconds(random.below(30'000));
    CAPTURE(round, delay.count());
    stop_after({"rollback", disk}, SIGKILL, delay, folder / "log");
    const auto now = support::read_file(disk);
    const auto kept = support::read_file(disk + ".bak");
    CHECK(((now == one && kept == other) || (now == other && kept == one)));
    CHECK(support::list_directory(folder.path()).size() == 3);
  }
}
