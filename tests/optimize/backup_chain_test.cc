// Incremental backups stay right when a disk is made compact between them.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/dirty_bits.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::run_ok;
using support::TempDirectory;

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMiB = 1 << 20;
using Words = std::vector<std::string>;

void put_noise(const std::string& path, uint64_t size, uint64_t seed) {
  support::Random random(seed);
  std::vector<std::byte> bytes(size);
  random.fill(bytes);
  support::write_file(path, bytes);
}

void run_backup(const std::string& mode, const std::string& disk, const std::string& target) {
  const std::string root = std::getenv("VIRT_COMPACT_SOURCE_ROOT");
  run_ok({"python3", root + "/tests/support/backup_job.py", mode, disk, "since", target});
}

// Writes to the disk what differs between two raw files, as a guest would.
void write_changes(const TempDirectory& folder, const std::string& before, const std::string& after,
                   const std::string& disk) {
  constexpr size_t kBlock = 4096;
  const auto old = support::read_file(before);
  const auto now = support::read_file(after);
  REQUIRE(old.size() == now.size());
  Words command{"qemu-io", "-f", "qcow2"};
  const auto differs = [&](size_t at) {
    return at < now.size() && !std::equal(now.begin() + static_cast<ptrdiff_t>(at),
                                          now.begin() + static_cast<ptrdiff_t>(at + kBlock),
                                          old.begin() + static_cast<ptrdiff_t>(at));
  };
  for (size_t at = 0; at < now.size();) {
    size_t end = at;
    while (differs(end)) end += kBlock;
    if (end > at) {
      const std::string piece = folder / fmt::format("piece-{}", at);
      support::write_file(piece, std::span(now).subspan(at, end - at));
      command.insert(command.end(),
                     {"-c", fmt::format("write -q -s {} {} {}", piece, at, end - at)});
    }
    at = end + kBlock;
  }
  command.push_back(disk);
  run_ok(command);
}

// A disk with an ext4 that has changed since its full backup: a file is deleted, and one is new.
class BackedUpDisk {
 public:
  BackedUpDisk() {
    fs::create_directory(folder_ / "tree");
    put_noise(folder_ / "tree/kept", 3 * kMiB, 1);
    put_noise(folder_ / "tree/gone", 12 * kMiB, 2);
    put_noise(folder_ / "tree/swapfile", 4 * kMiB, 3);
    fs::permissions(folder_ / "tree/swapfile", fs::perms(0600));
    run_ok({"mkswap", "-q", folder_ / "tree/swapfile"});
    put_noise(folder_ / "new", kMiB, 4);
    run_ok({"mke2fs", "-q", "-F", "-t", "ext4", "-d", folder_ / "tree", folder_ / "raw", "64M"});
    run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder_ / "raw", disk()});
    run_ok({"truncate", "-s", "64M", full()});
    run_backup("full", disk(), full());
    run_ok({"cp", folder_ / "raw", folder_ / "raw.now"});
    run_ok({"debugfs", "-w", "-R", "rm gone", folder_ / "raw.now"});
    run_ok({"debugfs", "-w", "-R", "write " + folder_ / "new" + " new", folder_ / "raw.now"});
    write_changes(folder_, folder_ / "raw", folder_ / "raw.now", disk());
    run_ok({"qemu-img", "compare", "-f", "raw", folder_ / "raw.now", disk()});
  }

  std::string disk() const { return folder_ / "disk.qcow2"; }
  std::string full() const { return folder_ / "full.raw"; }
  const TempDirectory& folder() const { return folder_; }

  // Restores `compact`, which was made from the disk, by two incremental backups.
  void check_chain(const std::string& compact) const {
    // Otherwise the test would show nothing: what was free has been emptied.
    REQUIRE(support::run({"qemu-img", "compare", "-f", "raw", folder_ / "raw.now", compact})
                .exit_code == 1);
    run_ok({"qemu-img", "check", "-q", compact});
    CHECK(support::has_bitmap_flag(compact, "since", "auto"));
    // An update of an earlier copy, over NBD.
    run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", full(), folder_ / "earlier"});
    const auto updated =
        tool_test::run_tool({"copy", "--bitmap", "since", "[", "qemu-nbd", "-r", "-f", "qcow2",
                             "-B", "since", compact, "]", folder_ / "earlier"});
    INFO(updated.describe());
    REQUIRE(updated.ok());
    run_ok({"qemu-img", "compare", folder_ / "earlier", compact});
    // A backup job of QEMU, which clears the bitmap.
    run_backup("incremental", compact, full());
    run_ok({"qemu-img", "compare", "-f", "raw", full(), compact});
    run_ok({"e2fsck", "-fn", full()});
    const auto dirty = support::dirty_sectors(compact, "since");
    CHECK(std::none_of(dirty.begin(), dirty.end(), [](bool it) { return it; }));
  }

 private:
  const TempDirectory folder_;
};

void run_tool_ok(const Words& arguments) {
  const auto done = tool_test::run_tool(arguments);
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(done.err.find("bitmap") == std::string::npos);
}

}  // namespace

TEST_CASE("incremental backups stay right after optimize, copy and trim", "[backup-chain]") {
  const BackedUpDisk it;
  SECTION("in place") {
    run_tool_ok({"optimize", "--force", "--trim=metadata", it.disk()});
    it.check_chain(it.disk());
  }
  SECTION("compressed, without the content of the swap file") {
    const std::string out = it.folder() / "out.qcow2";
    run_tool_ok({"optimize", "-c", "--trim=metadata", "--drop=swapfile", "-o", out, it.disk()});
    it.check_chain(out);
  }
  SECTION("a copy with other clusters") {
    const std::string out = it.folder() / "out.qcow2";
    run_tool_ok(
        {"copy", "--skip-free", "--bitmaps", "-o", "cluster_size=4k", "--verify", it.disk(), out});
    it.check_chain(out);
  }
  SECTION("a trim in place") {
    run_tool_ok({"trim", "--metadata", it.disk()});
    it.check_chain(it.disk());
  }
}

TEST_CASE("optimize tells which bitmaps do not go along", "[backup-chain]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", disk});
  run_ok({"qemu-img", "bitmap", "--add", disk, "one"});
  const auto optimize = [&](Words options, const std::string& name) {
    options.insert(options.begin(), {"optimize", "--no-trim", "-o", folder / name});
    options.push_back(disk);
    const auto done = tool_test::run_tool(options);
    INFO(done.describe());
    REQUIRE(done.ok());
    return done.err;
  };
  CHECK(optimize({}, "all").find("bitmap") == std::string::npos);
  CHECK(support::bitmap_names(folder / "all") == Words{"one"});
  CHECK(optimize({"--drop-bitmaps"}, "none").find("bitmap") == std::string::npos);
  CHECK(support::bitmap_names(folder / "none").empty());
  CHECK_THAT(optimize({"-O", "raw"}, "raw"),
             Catch::Contains("its 1 persistent bitmap is not copied, because a raw disk has none"));
  CHECK_THAT(optimize({"--options", "compat=0.10"}, "old"),
             Catch::Contains("because version 2 (compat=0.10) has none"));
}
