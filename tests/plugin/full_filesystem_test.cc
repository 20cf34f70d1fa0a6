// Tests a filesystem that is full, and has free space later.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>

#include "tests/catch.h"
#include "tests/interop/qemu.h"
#include "tests/plugin/served_disk.h"
#include "tests/plugin/traffic.h"
#include "tests/plugin/written_image.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::TempDirectory;
using test::Bytes;
using test::Request;
using test::Traffic;

namespace {

Request one(Traffic& traffic, Request request) {
  traffic.submit(0, std::move(request));
  return traffic.wait().at(0);
}

}  // namespace

TEST_CASE("a full filesystem is an error of the request, and later requests succeed again",
          "[write-errors]") {
  if (!test::server_ends() || !support::run({"unshare", "-rm", "true"}).ok()) {
    WARN("skipped: no namespaces of one's own here");
    return;
  }
  const TempDirectory folder;
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "64M"});
  // A filesystem of 4 MiB that only the server sees. The image is copied out of it at the end.
  const std::string script =
      "mkdir full && mount -t tmpfs -o size=4m none full && cp disk.qcow2 full && "
      "nbdkit -f -U socket -P pid \"$1\" full/disk.qcow2 && "
      "cp --sparse=always full/disk.qcow2 disk.qcow2";
  support::Child server(
      {"env", "-C", folder.path(), "unshare", "-rm", "sh", "-c", script, "sh", tool_test::plugin()},
      folder / "log");
  const auto until = [&](auto done) {
    for (int i = 0; i < 10000 && !done(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    return done();
  };
  REQUIRE(until([&] { return !server.running() || std::filesystem::exists(folder / "pid"); }));
  REQUIRE(server.running());
  constexpr uint64_t kMiB = 1 << 20;
  {
    Traffic traffic(folder / "socket", 1, 1);
    const Bytes full(kMiB, std::byte{1});
    unsigned written = 0;
    for (uint64_t at = 0; at < 64 * kMiB; at += kMiB) {
      const int error = one(traffic, {Request::Kind::kWrite, at, kMiB, 0, full, 0, 0}).error;
      REQUIRE((error == 0 || error == ENOSPC));
      written += error == 0;
    }
    CHECK(written == 3);
    CHECK(one(traffic, {}).error == 0);
    CHECK((one(traffic, {Request::Kind::kRead, 2 * kMiB, kMiB, 0, {}, 0, 0}).bytes == full));
    CHECK(one(traffic, {Request::Kind::kTrim, 0, 64 * kMiB, 0, {}, 0, 0}).error == 0);
    CHECK(one(traffic, {}).error == 0);
    const Bytes again(2 * kMiB, std::byte{2});
    CHECK(one(traffic, {Request::Kind::kWrite, 30 * kMiB, 2 * kMiB, 0, again, 0, 0}).error == 0);
    CHECK(one(traffic, {}).error == 0);
    traffic.disconnect();
  }
  const Bytes pid = support::read_file(folder / "pid");
  ::kill(std::stoi(std::string(reinterpret_cast<const char*>(pid.data()), pid.size())), SIGTERM);
  REQUIRE(until([&] { return !server.running(); }));
  CHECK(interop::check_complaint(image) == "");
  Bytes expected(64 * kMiB);
  std::fill_n(expected.begin() + 30 * kMiB, 2 * kMiB, std::byte{2});
  CHECK((test::read_by_qemu(folder, image) == expected));
}
