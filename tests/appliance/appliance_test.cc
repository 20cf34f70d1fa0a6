// The appliance: it boots on served disks, and leaves no files or processes, however it ends.
#include "appliance/appliance.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "appliance/disk_server.h"
#include "tests/appliance/left_behind.h"
#include "tests/appliance/listening.h"
#include "tests/catch.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using appliance::Appliance;
using appliance::DiskServer;
using appliance::GuestDisk;
using test::LeftBehind;
using test::Listening;

namespace {

GuestDisk blank_disk(const support::TempDirectory& folder) {
  const std::string path = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "100M"});
  auto disk = appliance::inspect_disk({path, {}, {}}, true);
  REQUIRE(disk);
  return *disk;
}

}  // namespace

TEST_CASE("the appliance boots, writes to a served disk, and ends") {
  const LeftBehind before;
  const support::TempDirectory folder;
  const GuestDisk disk = blank_disk(folder);
  const Cancel cancel;
  Listening observer;
  auto server = DiskServer::start(disk, DiskServer::Access::kTrim, cancel);
  REQUIRE(server);
  // Uses KVM if it works. Otherwise emulates the processor, although emulation was not requested.
  const char* const settings = std::getenv("LIBGUESTFS_BACKEND_SETTINGS");
  const std::string emulation = settings ? settings : "";
  ::unsetenv("LIBGUESTFS_BACKEND_SETTINGS");
  auto booted = Appliance::launch({{(*server)->socket(), false}}, observer, cancel);
  if (settings) ::setenv("LIBGUESTFS_BACKEND_SETTINGS", emulation.c_str(), 1);
  INFO((booted ? std::string() : booted.error().message()));
  REQUIRE(booted);
  CHECK((*booted)->emulated() == !observer.warnings.empty());
  {
    const Appliance& it = **booted;
    const auto devices = it.list(guestfs_list_devices(it.handle()), "devices");
    REQUIRE(devices);
    REQUIRE(*devices == std::vector<std::string>{"/dev/sda"});
    const std::string bytes(1 << 20, 'x');
    REQUIRE(guestfs_pwrite_device(it.handle(), "/dev/sda", bytes.data(), bytes.size(), 1 << 20) ==
            static_cast<int>(bytes.size()));
    REQUIRE(it.check(guestfs_sync(it.handle()), "sync"));
  }
  const auto data = (*server)->data();
  REQUIRE(data);
  REQUIRE(*data);
  CHECK((*data)->stretches() == std::vector<ByteRange>{{1 << 20, 2 << 20}});

  // Written zeros become a hole, and so do discarded ranges.
  {
    const Appliance& it = **booted;
    const std::string zeros(512 << 10, '\0');
    REQUIRE(guestfs_pwrite_device(it.handle(), "/dev/sda", zeros.data(), zeros.size(), 1 << 20) >
            0);
    REQUIRE(it.check(guestfs_sync(it.handle()), "sync"));
    CHECK((*server)->data().value()->bytes() == 512 << 10);
    const auto mistake = it.check(guestfs_mount(it.handle(), "/dev/sda", "/"), "mount");
    REQUIRE(!mistake);
    CHECK_THAT(mistake.error().message(), Catch::StartsWith("mount: "));
    REQUIRE(it.check(guestfs_blkdiscard(it.handle(), "/dev/sda"), "blkdiscard"));
    CHECK((*server)->data().value()->bytes() == 0);
  }
  REQUIRE((*booted)->shut_down());
  booted->reset();
  REQUIRE((*server)->flush());
  REQUIRE((*server)->close());
  server->reset();
  CHECK(before.complaint() == "");
}

TEST_CASE("a launch of the appliance can be interrupted immediately") {
  const LeftBehind before;
  const support::TempDirectory folder;
  const GuestDisk disk = blank_disk(folder);
  Cancel cancel;
  Listening observer;
  auto server = DiskServer::start(disk, DiskServer::Access::kTrim, cancel);
  REQUIRE(server);
  const auto start = std::chrono::steady_clock::now();
  std::thread impatient([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    cancel.request();
  });
  const auto booted = Appliance::launch({{(*server)->socket(), false}}, observer, cancel);
  impatient.join();
  REQUIRE(!booted);
  CHECK(booted.error().kind() == Error::Kind::kCancelled);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(9));
  server->reset();
  CHECK(before.complaint() == "");
}
