// Compaction in place: which ranges are deallocated, which are kept, and which disks are refused.

#include "copy/punch.h"

#include <sys/stat.h>

#include <thread>

#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/copy/restartable_server.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::PunchOptions;
using copy::PunchSummary;
using nbd::NbdTarget;
using support::read_file;
using support::run_ok;
using support::TempDirectory;

namespace {

using Words = std::vector<std::string>;

constexpr size_t kDiskSize = (16 << 20) + 7 * 4096;

// Makes a file with all blocks allocated, including zeros.
std::vector<std::byte> make_full_raw(const std::string& path, uint64_t seed) {
  auto bytes = test::lived_in_bytes(seed, kDiskSize);
  support::write_file(path, bytes);
  return bytes;
}

uint64_t blocks_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

uint64_t zero_bytes(const std::vector<std::byte>& bytes, size_t unit) {
  uint64_t zero = 0;
  for (size_t at = 0; at < bytes.size(); at += unit) {
    const size_t end = std::min(at + unit, bytes.size());
    bool all = true;
    for (size_t i = at; i < end && all; ++i) all = bytes[i] == std::byte{0};
    if (all) zero += end - at;
  }
  return zero;
}

NbdTarget nbdkit(Words arguments) {
  arguments.insert(arguments.begin(), "nbdkit");
  return NbdTarget{"", std::move(arguments)};
}

Result<PunchSummary> punch(const PunchOptions& options) {
  test::Watcher watcher;
  const Cancel cancel;
  auto summary = copy::punch(options, watcher, cancel);
  CHECK_FALSE(watcher.fell);
  if (summary) CHECK(watcher.last == watcher.total);
  return summary;
}

}  // namespace

TEST_CASE("zeros are freed, and nothing changes", "[copy]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  const std::vector<Words> servers{
      {"file", disk},
      {"--no-sr", "file", disk},
      {"--filter=multi-conn", "file", disk, "multi-conn-mode=disable"},
      {"--filter=noextents", "--filter=delay", "file", disk, "rdelay=1ms", "wdelay=1ms"},
      {"--filter=nozero", "file", disk, "zeromode=plugin", "fastzeromode=none"},
  };
  for (const Words& arguments : servers) {
    INFO(support::shell_line(arguments));
    const auto bytes = make_full_raw(disk, seed);
    const uint64_t before = blocks_of(disk);
    PunchOptions options;
    options.target = nbdkit(arguments);
    options.unit = 4096;
    const auto summary = punch(options);
    REQUIRE_OK(summary);
    CHECK(read_file(disk) == bytes);
    const uint64_t zero = zero_bytes(bytes, 4096);
    REQUIRE(zero > 0);
    CHECK(summary->disk_size == kDiskSize);
    CHECK(summary->scanned == kDiskSize);
    CHECK(summary->zero == zero);
    CHECK(summary->punched == zero);
    // The map of a fragmented file takes some blocks itself.
    CHECK(before - blocks_of(disk) >= zero - (256 << 10));
    // Deallocated ranges are not read again.
    const auto again = punch(options);
    REQUIRE_OK(again);
    if (arguments[0] == "file") {
      CHECK(again->scanned == kDiskSize - zero);
      CHECK(again->zero == 0);
    }
    CHECK(read_file(disk) == bytes);
  }
}

TEST_CASE("a QCOW2 behind QEMU's server loses its clusters of zeros", "[copy]") {
  const TempDirectory folder;
  const auto bytes = make_full_raw(folder / "raw", 3);
  // Everything is allocated.
  for (const char* shared : {"--shared=1", "--shared=0"})
    for (const uint64_t unit : {uint64_t{0}, uint64_t{4096}, uint64_t{64} << 10}) {
      INFO(shared << ", " << unit);
      run_ok({"qemu-img", "convert", "-S", "0", "-f", "raw", "-O", "qcow2", folder / "raw",
              folder / "disk"});
      const uint64_t before = blocks_of(folder / "disk");
      PunchOptions options;
      options.target.command = {"qemu-nbd",        "-f",           "qcow2", shared,
                                "--discard=unmap", folder / "disk"};
      options.unit = unit;
      const auto summary = punch(options);
      REQUIRE_OK(summary);
      CHECK(summary->zero >= zero_bytes(bytes, 64 << 10));
      // Runs of zeros that do not fill a cluster are kept, since zeroing them would be a write.
      CHECK(summary->punched >= zero_bytes(bytes, 64 << 10) - (64 << 10));
      CHECK(summary->punched <= summary->zero);
      CHECK(before - blocks_of(folder / "disk") >= zero_bytes(bytes, 64 << 10) - (128 << 10));
      run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "disk"});
      run_ok({"qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", folder / "disk",
              folder / "raw"});
    }
}

TEST_CASE("a server that cannot deallocate causes an error before anything is read", "[copy]") {
  const TempDirectory folder;
  const auto bytes = make_full_raw(folder / "disk", 4);
  const std::string disk = folder / "disk";
  const auto refused = [&](Words arguments, const std::string& why) {
    PunchOptions options;
    options.target = nbdkit(std::move(arguments));
    const auto failed = punch(options);
    REQUIRE_FAILS_WITH(failed, why);
    CHECK(failed.error().message().starts_with("[ nbdkit "));
  };
  refused({"-r", "file", disk}, "read-only");
  refused({"--filter=nozero", "file", disk}, "the content of trimmed blocks would be undefined");
  refused({"eval", "get_size=echo 1M", "pread=exit 1", "pwrite=exit 1", "can_write=exit 0"},
          "does not support trim");
  PunchOptions options;
  options.target = nbdkit({"file", disk});
  options.unit = 3000;
  REQUIRE_FAILS_WITH(punch(options), "3000");
  CHECK(read_file(disk) == bytes);
}

TEST_CASE("a server that refuses zero requests keeps its zeros", "[copy]") {
  const TempDirectory folder;
  const auto bytes = make_full_raw(folder / "disk", 5);
  PunchOptions options;
  options.target = nbdkit(
      {"--filter=error", "file", folder / "disk", "error-zero=EINVAL", "error-zero-rate=100%"});
  const auto summary = punch(options);
  REQUIRE_OK(summary);
  CHECK(summary->zero > 0);
  CHECK(summary->punched == 0);
  CHECK(read_file(folder / "disk") == bytes);
  options.target =
      nbdkit({"--filter=error", "file", folder / "disk", "error-zero=EIO", "error-zero-rate=100%"});
  REQUIRE_FAILS_WITH(punch(options), "Input/output error");
  CHECK(read_file(folder / "disk") == bytes);
}

TEST_CASE("zeros are freed even if the server dies and restarts", "[copy]") {
  const TempDirectory folder;
  for (const unsigned connections : {1u, 4u}) {
    const auto bytes = make_full_raw(folder / "disk", 6);
    test::RestartableServer server({"nbdkit", "-f", "--exit-with-parent", "--unix", "SOCKET",
                                    "--filter=delay", "file", folder / "disk", "rdelay=5ms"});
    PunchOptions options;
    options.target.uri = server.uri();
    options.nbd.connections = connections;
    options.nbd.request_size = 64 << 10;
    test::Watcher watcher;
    bool killed = false;
    watcher.on_update = [&](uint64_t) {
      if (std::exchange(killed, true)) return;
      server.kill();
      server.start();
    };
    const Cancel cancel;
    const auto summary = copy::punch(options, watcher, cancel);
    REQUIRE_OK(summary);
    CHECK(killed);
    CHECK(summary->punched == summary->zero);
    CHECK(read_file(folder / "disk") == bytes);
    CHECK(blocks_of(folder / "disk") <= kDiskSize - summary->zero + (64 << 10));

    server.kill();
    options.nbd.retries = 1;
    REQUIRE_FAILS_WITH(punch(options), server.uri());
  }
}

TEST_CASE("a huge, almost empty disk needs few requests", "[copy]") {
  PunchOptions options;
  options.target = nbdkit({"memory", "4T"});
  const auto summary = punch(options);
  REQUIRE_OK(summary);
  CHECK(summary->scanned == 0);
  CHECK(summary->punched == 0);
}
