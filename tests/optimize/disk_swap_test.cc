#include "optimize/disk_swap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

#include "storage/directory.h"
#include "tests/catch_text.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using optimize::DiskSwap;
using optimize::roll_back;
using support::TempDirectory;

namespace fs = std::filesystem;

namespace {

std::string content(const std::string& path) {
  const auto bytes = support::read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void put(const std::string& path, const std::string& text) {
  support::write_file(path, text);
}

// Opens the file that has the name of the fresh image.
Descriptor fresh_file(const DiskSwap& swap) {
  return Descriptor(::open(swap.fresh().c_str(), O_RDWR | O_CLOEXEC));
}

// Swaps with the fresh content "new" up to `steps`, in a process that ends right then.
void swap_and_die(const std::string& disk, const std::optional<std::string>& suffix,
                  unsigned steps) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    auto swap = DiskSwap::plan(disk, suffix);
    if (!swap) ::_exit(1);
    support::write_file(swap->fresh(), std::string("new"));
    if (!swap->carry_over(fresh_file(*swap))) ::_exit(2);
    for (unsigned i = 0; i < steps; ++i)
      if (!swap->step()) ::_exit(3);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) == 0);
}

}  // namespace

TEST_CASE("a swap keeps the old disk beside the new one", "[swap]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  put(disk, "old");
  const bool link = GENERATE(false, true);
  if (link) fs::create_symlink("disk", folder / "link");
  auto swap = DiskSwap::plan(link ? folder / "link" : disk, ".bak");
  REQUIRE_OK(swap);
  CHECK(swap->other_names() == 0);
  put(swap->fresh(), "new");
  REQUIRE_OK(swap->carry_over(fresh_file(*swap)));
  REQUIRE_OK(swap->run());
  CHECK(content(disk) == "new");
  CHECK(content(disk + ".bak") == "old");
  CHECK_FALSE(fs::exists(swap->fresh()));
  if (link) CHECK(fs::is_symlink(folder / "link"));
}

TEST_CASE("a swap without a backup leaves only the new disk", "[swap]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  put(disk, "old");
  auto swap = DiskSwap::plan(disk, std::nullopt);
  REQUIRE_OK(swap);
  put(swap->fresh(), "new");
  REQUIRE_OK(swap->carry_over(fresh_file(*swap)));
  REQUIRE_OK(swap->run());
  CHECK(content(disk) == "new");
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator{}) == 1);
}

TEST_CASE("a kill between any two steps leaves the old or the new disk, and the next run works",
          "[swap]") {
  for (unsigned steps = 0; steps <= 2; ++steps) {
    CAPTURE(steps);
    const TempDirectory folder;
    const std::string disk = folder / "disk";
    put(disk, "old");
    swap_and_die(disk, ".bak", steps);
    CHECK(content(disk) == (steps < 2 ? "old" : "new"));
    if (steps == 2) {
      CHECK(content(disk + ".bak") == "old");
      REQUIRE_FAILS_WITH(DiskSwap::plan(disk, ".bak"), "exists already");
      continue;
    }
    auto again = DiskSwap::plan(disk, ".bak");
    REQUIRE_OK(again);
    CHECK(again->remarks().size() == steps + 1);
    CHECK(again->other_names() == 0);
    CHECK_FALSE(fs::exists(again->fresh()));
    put(again->fresh(), "newer");
    REQUIRE_OK(again->carry_over(fresh_file(*again)));
    REQUIRE_OK(again->run());
    CHECK(content(disk) == "newer");
    CHECK(content(disk + ".bak") == "old");
  }
}

TEST_CASE("owner, mode, ACL and attributes are copied to the new disk", "[swap]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  put(disk, "old");
  if (::geteuid() == 0) REQUIRE(::chown(disk.c_str(), 12345, 23456) == 0);
  REQUIRE(::chmod(disk.c_str(), 0640) == 0);
  const bool attributes = ::setxattr(disk.c_str(), "user.note", "kept", 4, 0) == 0;
  // user::rw- user:99:r-- group::--- mask::r-- other::---
  const unsigned char list[] = {2,    0,    0,    0,    1,    0,    6,    0,    0xff, 0xff, 0xff,
                                0xff, 2,    0,    4,    0,    99,   0,    0,    0,    4,    0,
                                0,    0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,    4,    0,    0xff,
                                0xff, 0xff, 0xff, 0x20, 0,    0,    0,    0xff, 0xff, 0xff, 0xff};
  const bool lists = ::setxattr(disk.c_str(), "system.posix_acl_access", list, sizeof list, 0) == 0;
  if (!attributes || !lists) WARN("skipped: no ACLs or attributes on this filesystem");
  struct stat before {};
  REQUIRE(::stat(disk.c_str(), &before) == 0);

  auto swap = DiskSwap::plan(disk, ".bak");
  REQUIRE_OK(swap);
  put(swap->fresh(), "new");
  ::setxattr(swap->fresh().c_str(), "user.folder", "x", 1, 0);
  REQUIRE_OK(swap->carry_over(fresh_file(*swap)));
  REQUIRE_OK(swap->run());
  CHECK(swap->remarks().empty());
  struct stat after {};
  REQUIRE(::stat(disk.c_str(), &after) == 0);
  CHECK(after.st_uid == before.st_uid);
  CHECK(after.st_gid == before.st_gid);
  CHECK(after.st_mode == before.st_mode);
  char value[100];
  if (attributes) {
    CHECK(::getxattr(disk.c_str(), "user.note", value, sizeof value) == 4);
    CHECK(::getxattr(disk.c_str(), "user.folder", value, sizeof value) < 0);
  }
  if (lists)
    CHECK(::getxattr(disk.c_str(), "system.posix_acl_access", value, sizeof value) == sizeof list);
}

TEST_CASE("a disk that cannot be swapped is refused", "[swap]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  REQUIRE_FAILS_WITH(DiskSwap::plan(disk, ".bak"), "No such file");
  REQUIRE_FAILS_WITH(DiskSwap::plan("/dev/null", ".bak"), "not a regular file");
  put(disk, "old");
  REQUIRE_FAILS_WITH(DiskSwap::plan(disk, "a/b"), "is not a valid suffix");
  put(disk + ".bak", "earlier");
  REQUIRE_FAILS_WITH(DiskSwap::plan(disk, ".bak"), "exists already");
  CHECK(content(disk + ".bak") == "earlier");
  const auto first = DiskSwap::plan(disk, ".old");
  REQUIRE_OK(first);
  REQUIRE_FAILS_WITH(DiskSwap::plan(disk, ".old"), "another virt-compact");
  fs::create_hard_link(disk, folder / "other");
}

TEST_CASE("other names of the disk are reported", "[swap]") {
  const TempDirectory folder;
  put(folder / "disk", "old");
  fs::create_hard_link(folder / "disk", folder / "other");
  const auto swap = DiskSwap::plan(folder / "disk", ".bak");
  REQUIRE_OK(swap);
  CHECK(swap->other_names() == 1);
}

TEST_CASE("a rollback restores the backup, and loses nothing", "[swap]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  put(disk, "new");
  REQUIRE_FAILS_WITH(roll_back(disk, ".bak", false), "disk.bak: the backup: No such file");
  put(disk + ".bak", "old");
  const auto done = roll_back(disk, ".bak", false);
  REQUIRE_OK(done);
  CHECK(content(disk) == "old");
  CHECK(content(done->backup) == "new");
  REQUIRE_OK(roll_back(disk, ".bak", false));
  CHECK(content(disk) == "new");
  const auto removed = roll_back(disk, ".bak", true);
  REQUIRE_OK(removed);
  CHECK(content(disk) == "old");
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator{}) == 1);
}

TEST_CASE("a disk that is in use is not rolled back", "[swap]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"});
  fs::copy_file(disk, disk + ".bak");
  const std::string socket = folder / "socket";
  const support::Child server({"qemu-nbd", "-f", "qcow2", "-t", "-k", socket, disk},
                              folder / "log");
  support::wait_for_greeting(socket);
  REQUIRE_FAILS_WITH(roll_back(disk, ".bak", false), "in use by qemu-nbd");
}

TEST_CASE("a link that gets the name of the fresh image is not followed", "[swap]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  const std::string victim = folder / "victim";
  put(disk, "old");
  put(victim, "secret");
  REQUIRE(::chmod(victim.c_str(), 0600) == 0);
  REQUIRE(::chmod(disk.c_str(), 0666) == 0);
  const bool root = ::geteuid() == 0;
  if (root) REQUIRE(::chown(disk.c_str(), 12345, 12345) == 0);
  // The moment: before the attributes are copied, or before each step.
  const unsigned moment = GENERATE(0U, 1U, 2U);
  const bool file = GENERATE(false, true);
  CAPTURE(moment, file);

  auto swap = DiskSwap::plan(disk, ".bak");
  REQUIRE_OK(swap);
  put(swap->fresh(), "new");
  auto fresh = fresh_file(*swap);
  const auto plant = [&] {
    fs::remove(swap->fresh());
    if (file)
      fs::create_hard_link(victim, swap->fresh());
    else
      fs::create_symlink("victim", swap->fresh());
  };
  const char* const kComplaint = "another process has replaced this file";
  if (moment == 0) {
    plant();
    REQUIRE_FAILS_WITH(swap->carry_over(std::move(fresh)), kComplaint);
  } else {
    REQUIRE_OK(swap->carry_over(std::move(fresh)));
    if (moment == 2) REQUIRE_OK(swap->step());
    plant();
    const auto swapped = swap->run();
    REQUIRE_FAILS_WITH(swapped, kComplaint);
    CHECK_THAT(swapped.error().message(), Catch::Contains("is the old disk"));
  }
  // This file is not ours, so it stays.
  CHECK(fs::symlink_status(swap->fresh()).type() != fs::file_type::not_found);
  CHECK(content(disk) == "old");
  struct stat status {};
  REQUIRE(::stat(victim.c_str(), &status) == 0);
  CHECK(status.st_uid == ::geteuid());
  CHECK((status.st_mode & 07777) == 0600);
  CHECK(content(victim) == "secret");
}

TEST_CASE("a disk that was replaced by another file is not overwritten", "[swap]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  put(disk, "old");
  auto swap = DiskSwap::plan(disk, ".bak");
  REQUIRE_OK(swap);
  put(swap->fresh(), "new");
  REQUIRE_OK(swap->carry_over(fresh_file(*swap)));
  const bool second_step = GENERATE(false, true);
  CAPTURE(second_step);
  if (second_step) REQUIRE_OK(swap->step());
  put(folder / "other", "somebody else's");
  fs::rename(folder / "other", disk);
  REQUIRE_FAILS_WITH(swap->run(), "another process has replaced this file");
  CHECK(content(disk) == "somebody else's");
}
