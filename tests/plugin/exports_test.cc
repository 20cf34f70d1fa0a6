// Tests what clients see before they read: exports, sizes, flags.
#include <fmt/format.h>
#include <libnbd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "tests/catch.h"
#include "tests/interop/nbd_client.h"
#include "tests/plugin/served_disk.h"
#include "tests/support/command_line.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using interop::NbdClient;
using support::TempDirectory;

namespace {

// A disk of 4 MiB with a snapshot of 2 MiB, "early" (ID 1), and a snapshot of the current disk with
// the name "1".
std::string disk_with_snapshots(const TempDirectory& folder) {
  std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "2M"});
  test::qemu_io(image, {"write -q -P 0x11 0 1M"});
  test::qemu_img({"snapshot", "-c", "early", image});
  test::qemu_img({"resize", "-q", image, "4M"});
  test::qemu_io(image, {"write -q -P 0x22 0 4M"});
  test::qemu_img({"snapshot", "-c", "1", image});
  test::qemu_io(image, {"write -q -P 0x33 0 4M"});
  return image;
}

int first_byte(const NbdClient& client) {
  return std::to_integer<int>(client.read(0, 1).front());
}

}  // namespace

TEST_CASE("each snapshot is an export with its own size", "[plugin]") {
  const TempDirectory folder;
  const auto server = test::serve({disk_with_snapshots(folder)});
  auto names = NbdClient::list(server.socket());
  // The second snapshot's name equals the first one's ID, which takes precedence. So the export
  // uses its ID.
  CHECK(names == std::vector<std::string>{"", "snapshot:early", "snapshot:2"});

  const NbdClient now(server.socket(), "");
  CHECK(now.size() == 4 << 20);
  CHECK(first_byte(now) == 0x33);
  const NbdClient early(server.socket(), "snapshot:early");
  CHECK(early.size() == 2 << 20);
  CHECK(first_byte(early) == 0x11);
  CHECK(first_byte(NbdClient(server.socket(), "snapshot:1")) == 0x11);
  CHECK(first_byte(NbdClient(server.socket(), "snapshot:2")) == 0x22);
}

TEST_CASE("other export names are refused with a message", "[plugin]") {
  const TempDirectory folder;
  const auto server = test::serve({disk_with_snapshots(folder)});
  CHECK_THROWS(NbdClient(server.socket(), "snapshot:none"));
  CHECK_THAT(server.log(), Contains("there is no snapshot 'none'"));
  CHECK_THROWS(NbdClient(server.socket(), "other"));
  CHECK_THAT(server.log(), Contains("there is no export 'other'"));
  // A client cannot add lines to the log.
  CHECK_THROWS(NbdClient(server.socket(), "no\nnbdkit: error: made up"));
  CHECK_THAT(server.log(), Contains("there is no export 'no\\x0anbdkit: error: made up'"));
  // The server still works.
  CHECK(first_byte(NbdClient(server.socket(), "")) == 0x33);
}

TEST_CASE("snapshot= makes a snapshot the disk", "[plugin]") {
  const TempDirectory folder;
  const auto server = test::serve({disk_with_snapshots(folder), "snapshot=early"});
  const NbdClient disk(server.socket(), "");
  CHECK(disk.size() == 2 << 20);
  CHECK(first_byte(disk) == 0x11);
}

TEST_CASE("clients see the capabilities of the server", "[plugin]") {
  const TempDirectory folder;
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", "-o", "cluster_size=256k", image, "1M"});
  const auto server = test::serve({image});
  const auto info = support::run_ok({"nbdinfo", "--json", server.uri()}).out;
  for (const char* can : {"can_fast_zero", "can_flush", "can_fua", "can_trim", "can_zero"})
    CHECK_THAT(info, Contains(fmt::format("\"{}\": true", can)));
  CHECK_THAT(info, Contains("\"is_read_only\": false"));
  CHECK_THAT(info, Contains("\"can_multi_conn\": true"));
  CHECK_THAT(info, Contains("\"can_cache\": true"));
  CHECK_THAT(info, Contains("\"block_minimum\": 1") || Contains("\"block_size_minimum\": 1"));
  CHECK_THAT(info, Contains("\"block_size_preferred\": 262144"));
  CHECK_THAT(info, Contains("\"block_size_maximum\": 67108864"));
  CHECK_THAT(info, Contains("disk of 1048576 bytes in a QCOW2 image"));
}

TEST_CASE("with -r no client can write, and nothing changes", "[plugin]") {
  const TempDirectory folder;
  const std::string image = disk_with_snapshots(folder);
  const auto before = support::run_ok({"sha256sum", image}).out;
  {
    const auto server = test::serve({image, "-r"});
    const auto wrote = support::run({"qemu-io", "-f", "raw", "-c", "write -P 0x44 0 64k",
                                     "nbd+unix:///?socket=" + server.socket()});
    INFO(wrote.describe());
    CHECK_FALSE(wrote.ok());
  }
  CHECK(support::run_ok({"sha256sum", image}).out == before);
}

TEST_CASE("a client that writes to a read-only disk is refused", "[plugin]") {
  const TempDirectory folder;
  const std::string image = disk_with_snapshots(folder);
  const auto before = support::run_ok({"sha256sum", image}).out;
  // Without -r, since a snapshot is never writable.
  const auto server = test::serve({image});
  {
    const std::unique_ptr<nbd_handle, void (*)(nbd_handle*)> client(nbd_create(), nbd_close);
    REQUIRE(client);
    REQUIRE(nbd_set_export_name(client.get(), "snapshot:early") == 0);
    REQUIRE(nbd_connect_unix(client.get(), server.socket().c_str()) == 0);
    // Otherwise libnbd itself would refuse to send what the server does not announce.
    REQUIRE(nbd_set_strict_mode(client.get(), 0) == 0);
    const char byte = 'x';
    CHECK(nbd_pwrite(client.get(), &byte, 1, 0, 0) == -1);
    CHECK(nbd_get_errno() == EPERM);
    CHECK(nbd_zero(client.get(), 4096, 0, 0) == -1);
    CHECK(nbd_trim(client.get(), 4096, 0, 0) == -1);
    // The connection still works, and cache requests are allowed.
    CHECK(nbd_cache(client.get(), 2 << 20, 0, 0) == 0);
    char read = 0;
    CHECK(nbd_pread(client.get(), &read, 1, 0, 0) == 0);
    CHECK(read == 0x11);
  }
  CHECK(support::run_ok({"sha256sum", image}).out == before);
}

TEST_CASE("the plugin describes itself", "[plugin]") {
  if (!test::server_ends()) {
    WARN("skipped: nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const auto dump = support::run_ok({"nbdkit", "--dump-plugin", tool_test::plugin()}).out;
  for (const char* line : {"name=qcow2", "magic_config_key=file", "thread_model=parallel",
                           "qcow2_zstd=yes", "qcow2_write=yes", "qcow2_create=yes"})
    CHECK_THAT(dump, Contains(line));
  const auto help = support::run_ok({"nbdkit", tool_test::plugin(), "--help"}).out;
  for (const char* word :
       {"file=", "snapshot=", "backing=", "cache-size=", "discard=", "detect-zeroes=",
        "coalesce-discard=", "zero-fragments=", "create=", "size=", "cluster-size="})
    CHECK_THAT(help, Contains(word));
}
