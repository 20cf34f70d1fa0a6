// Runs the whole procedure on disks of guests, as a user does.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/appliance/guest_maker.h"
#include "tests/appliance/interrupted.h"
#include "tests/appliance/left_behind.h"
#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using nlohmann::json;
using std::chrono::milliseconds;
using support::Outcome;
using support::run_ok;
using support::TempDirectory;
using test::shared_guests;

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMiB = 1 << 20;
// The unit of trimming.
constexpr uint64_t kGranule = 4096;
// A mount writes: it replays journals, updates superblocks, and commits trees of btrfs.
constexpr uint64_t kMountsWrite = 6 * kMiB;
// Deleted data in a small guest.
constexpr uint64_t kGarbage = 32 * kMiB;

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte it) { return it == std::byte{0}; });
}

// Returns the bytes of granules that differ in `after`, and that are not zeros there.
uint64_t rewritten(const std::string& before, const std::string& after) {
  const support::RawFile old(before);
  const support::RawFile fresh(after);
  REQUIRE(old.size() == fresh.size());
  uint64_t sum = 0;
  for (uint64_t at = 0; at < fresh.size(); at += kMiB) {
    const uint64_t length = std::min(kMiB, fresh.size() - at);
    const auto is = fresh.read(at, length);
    const auto was = old.read(at, length);
    if (is == was) continue;
    for (uint64_t in = 0; in < length; in += kGranule) {
      const auto granule = std::span(is).subspan(in, std::min(kGranule, length - in));
      const auto old_granule = std::span(was).subspan(in, granule.size());
      if (!std::equal(granule.begin(), granule.end(), old_granule.begin()) && !is_zero(granule))
        sum += granule.size();
    }
  }
  return sum;
}

Outcome optimize(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {tool_test::virt_compact(), "optimize"});
  support::RunOptions patient;
  patient.timeout = std::chrono::minutes(30);
  return support::run(arguments, patient);
}

// A disk that is one filesystem, made without an appliance.
class SmallGuest {
 public:
  explicit SmallGuest(const TempDirectory& folder) : folder_(folder) {
    const TempDirectory scratch;
    fs::create_directory(scratch / "tree");
    std::vector<std::byte> noise(kGarbage);
    support::Random(7).fill(noise);
    support::write_file(scratch / "tree/gone", noise);
    support::write_file(scratch / "tree/kept", std::span(noise).first(kMiB + 123));
    const std::string raw = scratch / "raw";
    run_ok({"mke2fs", "-q", "-t", "ext4", "-d", scratch / "tree", raw, "96M"});
    run_ok({"debugfs", "-w", "-R", "rm gone", raw});
    run_ok({"qemu-img", "convert", "-O", "qcow2", raw, original()});
    restore();
  }

  std::string disk() const { return folder_ / "disk.qcow2"; }
  std::string original() const { return folder_ / "original.qcow2"; }
  // Restores the folder to the disk alone.
  void restore() const {
    for (const std::string& name : support::list_directory(folder_.path()))
      if (name != "original.qcow2") fs::remove(folder_ / name);
    fs::copy_file(original(), disk());
  }
  bool is_as_it_was() const { return support::read_file(disk()) == support::read_file(original()); }

  // Returns what is wrong with an image of the guest: errors, or a changed file. Empty: nothing.
  std::string complaint(const std::string& image) const {
    const TempDirectory scratch;
    const std::string raw = scratch / "raw";
    const std::vector<std::vector<std::string>> commands{
        {"qemu-img", "check", "-q", image},
        {"qemu-img", "convert", "-O", "raw", image, raw},
        {"e2fsck", "-fn", raw},
        {"debugfs", "-R", "dump kept " + scratch / "kept", raw}};
    for (const auto& command : commands)
      if (const auto outcome = support::run(command); !outcome.ok()) return outcome.describe();
    std::vector<std::byte> noise(kMiB + 123);
    support::Random(7).fill(noise);
    return support::read_file(scratch / "kept") == noise ? "" : "the file is another";
  }

 private:
  const TempDirectory& folder_;
};

void stop_at(const std::vector<test::Moment>& moments) {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  for (const test::Moment& moment : moments) {
    CAPTURE(moment.step, moment.later.count(), moment.signal);
    guest.restore();
    const test::LeftBehind before;
    const TempDirectory logs;
    test::interrupt({tool_test::virt_compact(), "optimize", "--trim=appliance", guest.disk()},
                    logs / "log", moment);
    // No processes and no temporary files are left.
    CHECK(before.complaint() == "");
    // The disk is the old one or the new one.
    const bool swapped = !guest.is_as_it_was();
    if (swapped) {
      CHECK(support::read_file(guest.disk() + ".bak") == support::read_file(guest.original()));
      CHECK(guest.complaint(guest.disk()) == "");
    }
    const auto names = support::list_directory(folder.path());
    const bool left = names.front().starts_with(".");
    if (moment.signal != SIGKILL) CHECK_FALSE(left);

    // The next run succeeds.
    const auto again = optimize({"--no-trim", "--force", "--backup", ".again", guest.disk()});
    INFO(again.describe());
    REQUIRE(again.ok());
    if (left) CHECK_THAT(again.err, Catch::Contains("an earlier run was stopped"));
    CHECK(guest.complaint(guest.disk()) == "");
    CHECK_FALSE(support::list_directory(folder.path()).front().starts_with("."));
  }
}

}  // namespace

TEST_CASE("optimize keeps the data of the guest, and a disk that fails does not stop the others",
          "[essential]") {
  // First, since the folder of LeftBehind is removed with it.
  const test::Guests& guests = shared_guests();
  const test::LeftBehind before;
  const TempDirectory folder;
  const std::string linux_disk = folder / "linux.qcow2";
  const std::string windows_disk = folder / "windows.qcow2";
  fs::copy_file(guests.linux_disk, linux_disk);
  fs::copy_file(guests.windows_disk, windows_disk);

  const std::string held_disk = folder / "held.qcow2";
  run_ok({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "missing", "-F", "raw", held_disk,
          "1M"});

  const auto done = optimize({"-c", "--json", "--drop", "pagefile,swapfile", "--key",
                              std::string("/dev/sda3:key:") + test::kPassphrase, linux_disk,
                              held_disk, windows_disk});
  INFO(done.describe());
  CHECK(done.exit_code == 1);
  const json report = json::parse(done.out);
  CHECK(report.at("failed") == 1);
  const json& disks = report.at("disks");
  REQUIRE(disks.size() == 3);
  CHECK_THAT(std::string(disks.at(1).at("error")), Catch::Contains("held.qcow2: backing file"));
  CHECK(support::list_directory(folder.path()) ==
        std::vector<std::string>{"held.qcow2", "linux.qcow2", "linux.qcow2.bak", "windows.qcow2",
                                 "windows.qcow2.bak"});

  for (const auto& [disk, original, saved] :
       {std::tuple(linux_disk, guests.linux_disk, 100 * kMiB),
        std::tuple(windows_disk, guests.windows_disk, 60 * kMiB)}) {
    CAPTURE(disk);
    // The old disk was not written to.
    CHECK(support::read_file(disk + ".bak") == support::read_file(original));
    CHECK(support::run({"qemu-img", "check", "-q", disk}).ok());
    CHECK(fs::file_size(disk) + saved < fs::file_size(disk + ".bak"));
  }
  for (const json& space : disks.at(2).at("trim").at("filesystems")) {
    CAPTURE(space.dump());
    const bool is_known = space.at("why") == "its free space is known from its metadata";
    CHECK((is_known || space.at("outcome") == "trimmed"));
  }

  run_ok({"qemu-img", "convert", "-O", "raw", linux_disk + ".bak", folder / "before.raw"});
  run_ok({"qemu-img", "convert", "-O", "raw", linux_disk, folder / "after.raw"});
  CHECK(rewritten(folder / "before.raw", folder / "after.raw") <= kMountsWrite);
  {
    // Compares the partition table, and the data after the last partition.
    const support::RawFile old(folder / "before.raw");
    const support::RawFile fresh(folder / "after.raw");
    CHECK(old.read(0, kMiB) == fresh.read(0, kMiB));
    CHECK(old.read(929 * kMiB, 95 * kMiB) == fresh.read(929 * kMiB, 95 * kMiB));
  }

  test::Checksums kept = guests.kept;
  std::erase_if(kept, [](const auto& it) { return it.first.starts_with("/dev/sdc"); });
  CHECK(kept.size() >= 24);
  CHECK(test::read_checksums({linux_disk, windows_disk}, kept) == kept);
  CHECK(before.complaint() == "");

  for (const auto& [disk, original] :
       {std::pair(linux_disk, guests.linux_disk), std::pair(windows_disk, guests.windows_disk)}) {
    run_ok({tool_test::virt_compact(), "rollback", "-q", disk});
    CHECK(support::read_file(disk) == support::read_file(original));
    CHECK(support::run({"qemu-img", "check", "-q", disk + ".bak"}).ok());
  }
}

TEST_CASE("optimize --in-place trims in the appliance, and makes the same file short",
          "[essential]") {
  const test::LeftBehind before;
  const TempDirectory folder;
  const SmallGuest guest(folder);
  fs::create_hard_link(guest.disk(), folder / ".same");
  const uint64_t length = fs::file_size(guest.disk());
  const auto done = optimize({"--in-place", "--trim=appliance", "--json", guest.disk()});
  INFO(done.describe());
  REQUIRE(done.ok());
  const json report = json::parse(done.out).at("disks").at(0);
  CHECK(report.at("free-space").at("appliance") == true);
  CHECK(report.at("trim").at("complete") == true);
  CHECK(report.at("discarded") == 0);
  // Whole clusters are freed.
  CHECK(fs::file_size(guest.disk()) + kGarbage - kMiB < length);
  CHECK(fs::equivalent(guest.disk(), folder / ".same"));
  CHECK(guest.complaint(guest.disk()) == "");
  CHECK(support::list_directory(folder.path()).size() == 3);
  CHECK(before.complaint() == "");
}

TEST_CASE("the appliance trims only volumes with doubtful metadata, and the result is as small") {
  const TempDirectory folder;
  const std::string raw = folder / "raw";
  const auto put = [&](const std::string& from, const char* seek) {
    run_ok({"dd", "if=" + from, "of=" + raw, "bs=1M", "conv=notrunc,sparse", "status=none",
            std::string("seek=") + seek});
  };
  const auto make = [&](const std::string& path, size_t kept, const char* size) {
    const TempDirectory tree;
    std::vector<std::byte> noise(kept);
    support::Random(8).fill(noise);
    support::write_file(tree / "kept", noise);
    support::write_file(tree / "gone", std::span(noise).first(kGarbage));
    run_ok({"mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum", "-d", tree.path(), path, size});
    run_ok({"debugfs", "-w", "-R", "rm gone", path});
  };
  support::write_file(raw, std::string());
  support::resize_file(raw, 320 * kMiB);
  run_ok({"sh", "-c",
          "printf 'label: gpt\nstart=1MiB,size=100MiB\nstart=101MiB,size=200MiB\n' | sfdisk -q "
          "\"$1\"",
          "sh", raw});
  make(folder / "clean", kGarbage, "100M");
  make(folder / "dirty", 80 * kMiB, "200M");
  // Marks the journal as not replayed.
  const std::byte flags = support::RawFile(folder / "dirty").read(1024 + 0x60, 1)[0] | std::byte{4};
  support::patch_file(folder / "dirty", 1024 + 0x60, std::span(&flags, 1));
  put(folder / "clean", "1");
  put(folder / "dirty", "101");
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "disk"});
  const auto old = support::read_file(folder / "disk");

  const test::LeftBehind before;
  const auto done = optimize({"--json", "-o", folder / "out", folder / "disk"});
  INFO(done.describe());
  REQUIRE(done.ok());
  const json report = json::parse(done.out).at("disks").at(0);
  const json& plan = report.at("free-space");
  CHECK(plan.at("appliance") == true);
  CHECK(plan.at("why") == "/dev/sda2: its journal must be replayed");
  const json& spaces = report.at("trim").at("filesystems");
  REQUIRE(spaces.size() == 2);
  CHECK(spaces.at(0).at("outcome") == "left-alone");
  CHECK(spaces.at(0).at("why") == "its free space is known from its metadata");
  CHECK(spaces.at(1).at("outcome") == "trimmed");
  // These steps run concurrently with the check.
  const auto has_step = [&](const char* name) {
    const json& steps = report.at("steps");
    return std::any_of(steps.begin(), steps.end(),
                       [&](const json& it) { return it.at("name") == name; });
  };
  CHECK(has_step("check"));
  CHECK(has_step("trim"));
  // The appliance does not change the first filesystem.
  CHECK(has_step("early copy"));
  CHECK(support::read_file(folder / "disk") == old);

  REQUIRE(optimize({"-q", "--trim=appliance", "-o", folder / "other", folder / "disk"}).ok());
  const auto size = fs::file_size(folder / "out");
  CHECK(size + 2 * kGarbage - 4 * kMiB < fs::file_size(folder / "disk"));
  CHECK(size < fs::file_size(folder / "other") * 101 / 100);
  for (const char* const name : {"out", "other"}) {
    CAPTURE(name);
    run_ok({"qemu-img", "check", "-q", folder / name});
    run_ok({"qemu-img", "convert", "-O", "raw", folder / name, folder / "raw.out"});
    for (const auto& [skip, count, kept] :
         {std::tuple("1", "100", kGarbage), std::tuple("101", "200", 80 * kMiB)}) {
      run_ok({"dd", "if=" + folder / "raw.out", "of=" + folder / "volume", "bs=1M",
              std::string("skip=") + skip, std::string("count=") + count, "status=none"});
      run_ok({"e2fsck", "-fn", folder / "volume"});
      run_ok({"debugfs", "-R", "dump kept " + folder / "kept", folder / "volume"});
      std::vector<std::byte> noise(kept);
      support::Random(8).fill(noise);
      CHECK(support::read_file(folder / "kept") == noise);
      fs::remove(folder / "volume");
    }
  }
  CHECK(before.complaint() == "");
}

TEST_CASE("a suspended guest is refused, or copied without a trim with --keep-going") {
  const test::Guests& guests = shared_guests();
  const test::LeftBehind before;
  const TempDirectory folder;
  const std::string asleep = folder / "asleep.qcow2";
  fs::copy_file(guests.asleep_disk, asleep);
  const auto refused = optimize({asleep});
  INFO(refused.describe());
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains("Windows is hibernated"));
  CHECK(support::list_directory(folder.path()) == std::vector<std::string>{"asleep.qcow2"});
  const auto done = optimize({"--keep-going", "-o", folder / "out.qcow2", asleep});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK_THAT(done.err, Catch::Contains("the guest is not trimmed") &&
                           Catch::Contains("Windows is hibernated"));
  CHECK(support::read_file(asleep) == support::read_file(guests.asleep_disk));
  CHECK(support::run({"qemu-img", "compare", "-q", asleep, folder / "out.qcow2"}).ok());
  CHECK(support::list_directory(folder.path()) ==
        std::vector<std::string>{"asleep.qcow2", "out.qcow2"});
  CHECK(before.complaint() == "");
}

TEST_CASE("OUT is the trimmed disk, and DISK is not changed") {
  const test::LeftBehind before;
  const TempDirectory folder;
  const SmallGuest guest(folder);
  const auto done = optimize({"-o", folder / "out.qcow2", guest.disk()});
  INFO(done.describe());
  REQUIRE(done.ok());
  // Other users cannot read the overlay.
  CHECK_THAT(done.out, !Catch::Contains(".overlay"));
  CHECK(guest.is_as_it_was());
  CHECK(support::list_directory(folder.path()) ==
        std::vector<std::string>{"disk.qcow2", "original.qcow2", "out.qcow2"});
  CHECK(guest.complaint(folder / "out.qcow2") == "");
  CHECK(fs::file_size(folder / "out.qcow2") + kGarbage / 2 < fs::file_size(guest.disk()));
  CHECK(before.complaint() == "");
}

TEST_CASE("a run that is stopped during the trim keeps the disk, and leaves no files",
          "[essential][stopped]") {
  stop_at({{"Booting", milliseconds(1500), SIGKILL},
           {"Trimming /dev/sda", milliseconds(20), SIGKILL},
           {"Trimming /dev/sda", milliseconds(20), SIGINT},
           {"Copying", milliseconds(0), SIGKILL}});
}

TEST_CASE("a run that is stopped at any other moment keeps the disk, and leaves no files",
          "[stopped]") {
  stop_at({{"Opening", milliseconds(0), SIGKILL},
           {"Creating", milliseconds(0), SIGKILL},
           {"Booting", milliseconds(20), SIGKILL},
           {"Booting", milliseconds(5000), SIGINT},
           {"Looking", milliseconds(300), SIGKILL},
           {"Looking", milliseconds(300), SIGTERM},
           {"Shutting", milliseconds(50), SIGKILL},
           {"Replacing", milliseconds(0), SIGKILL}});
}

TEST_CASE("a run in place that is stopped during the trim goes on", "[stopped]") {
  const TempDirectory folder;
  const SmallGuest guest(folder);
  for (const int signal : {SIGKILL, SIGTERM}) {
    CAPTURE(signal);
    guest.restore();
    const test::LeftBehind before;
    const TempDirectory logs;
    test::interrupt(
        {tool_test::virt_compact(), "optimize", "--in-place", "--trim=appliance", guest.disk()},
        logs / "log", {"Trimming /dev/sda", milliseconds(20), signal});
    // After a kill, the servers end soon.
    CHECK(before.complaint() == "");
    const auto check = support::run({"qemu-img", "check", "-q", guest.disk()});
    INFO(check.describe());
    CHECK((check.ok() || (signal == SIGKILL && check.exit_code == 3)));
    const auto again = optimize({"--in-place", "--trim=appliance", guest.disk()});
    INFO(again.describe());
    REQUIRE(again.ok());
    CHECK(guest.complaint(guest.disk()) == "");
  }
}
