// The disk below the image is full or broken. Requests fail, but nothing else does.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "tests/catch.h"
#include "tests/interop/nbd_client.h"
#include "tests/interop/qemu.h"
#include "tests/plugin/failing_server.h"
#include "tests/plugin/possible_bytes.h"
#include "tests/plugin/served_disk.h"
#include "tests/plugin/traffic.h"
#include "tests/plugin/written_image.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::Random;
using support::TempDirectory;
using test::Bytes;
using test::FailingServer;
using test::PossibleBytes;
using test::Request;
using test::Traffic;
using test::WritingServer;
using test::WrittenImage;

namespace {

bool slow(const Request& done) {
  return (done.flags & LIBNBD_CMD_FLAG_FAST_ZERO) != 0 && done.error == ENOTSUP;
}

// Exchanges some requests on two connections. `error`: permitted error of failed requests; 0: no
// request may fail.
void exchange(Traffic& traffic, PossibleBytes& model, uint64_t cluster_size, Random& random,
              int error) {
  static const std::vector<Request::Kind> kKinds{
      Request::Kind::kWrite, Request::Kind::kWrite, Request::Kind::kWrite, Request::Kind::kWrite,
      Request::Kind::kZero,  Request::Kind::kTrim,  Request::Kind::kFlush};
  const auto settle = [&](const std::vector<Request>& ended) {
    for (const Request& done : ended) {
      INFO(done.describe());
      if (slow(done)) continue;
      REQUIRE((done.error == 0 || done.error == error));
      if (done.kind == Request::Kind::kFlush) continue;
      if (done.error == 0)
        model.surely(done);
      else
        model.maybe(done);
    }
  };
  const uint64_t requests = random.between(1, 12);
  for (uint64_t i = 0; i < requests; ++i) {
    while (!traffic.idle(random)) settle(traffic.wait());
    const Request::Kind kind = random.pick(kKinds);
    if (kind == Request::Kind::kFlush)
      traffic.submit(*traffic.idle(random), {});
    else if (auto request = draw_request(random, traffic, kind, cluster_size))
      traffic.submit(*traffic.idle(random), std::move(*request));
  }
  while (!traffic.empty()) settle(traffic.wait());
}

Request one(Traffic& traffic, Request request) {
  traffic.submit(0, std::move(request));
  return traffic.wait().at(0);
}

Bytes read_all(Traffic& traffic) {
  constexpr uint64_t kPiece = 8 << 20;
  Bytes all;
  for (uint64_t at = 0; at < traffic.size(); at += kPiece) {
    const Request done = one(
        traffic, {Request::Kind::kRead, at, std::min(kPiece, traffic.size() - at), 0, {}, 0, 0});
    REQUIRE(done.error == 0);
    all.insert(all.end(), done.bytes.begin(), done.bytes.end());
  }
  return all;
}

}  // namespace

TEST_CASE("errors of the disk affect only the failed requests", "[write-errors]") {
  if (!test::server_ends()) {
    WARN("skipped: the library that fails calls and that of a sanitizer do not go together");
    return;
  }
  const uint64_t images = support::iterations(10);
  int64_t failed = 0;
  for (uint64_t i = 0; support::more_iterations(i, images, failed > 0); ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const WrittenImage image = test::make_written_image(random, folder);
    CAPTURE(seed, image.kind);
    Bytes contents;
    PossibleBytes model(image.contents);
    std::vector<std::string> parameters{image.path};
    if (random.chance(30)) parameters.emplace_back("coalesce-discard=true");
    if (random.chance(30)) parameters.emplace_back("detect-zeroes=unmap");
    FailingServer failing(parameters);
    const bool killed = random.chance(50);
    {
      Traffic traffic(failing.server().socket(), 2, 3);
      for (int attempt = 0; attempt < 25; ++attempt) {
        const int error = random.chance(50) ? ENOSPC : EIO;
        CAPTURE(attempt, error, support::shell_line(parameters));
        failing.fail_with(error, static_cast<int64_t>(random.below(15)),
                          error == EIO && random.chance(50));
        exchange(traffic, model, image.cluster_size(), random, error);
        failing.work_again();
        INFO(failing.server().log());
        // There is free space again. All data is old or new, and later requests succeed.
        exchange(traffic, model, image.cluster_size(), random, 0);
        contents = read_all(traffic);
        REQUIRE(model.complaint(contents) == "");
        model.observed(contents);
        REQUIRE(one(traffic, {}).error == 0);
      }
      traffic.disconnect();
    }
    failed += failing.failed();
    if (killed)
      failing.server().kill();
    else
      failing.server().stop();
    INFO(failing.server().log());
    const auto check = support::run({"qemu-img", "check", "-f", "qcow2", image.path});
    INFO(check.describe());
    // A failure leaks no clusters, unless the server was killed.
    if (!killed)
      REQUIRE(check.exit_code == 0);
    else if (!image.shape.lazy_refcounts)
      REQUIRE((check.exit_code == 0 || check.exit_code == 3));
    // All data was flushed.
    REQUIRE(model.complaint(test::read_by_qemu(folder, image.path)) == "");
  }
  CHECK(failed > 0);
}

namespace {

// Checks a client that can read, and that gets the reason why it cannot write.
void check_read_only(WritingServer& server, const std::string& why,
                     const std::string& export_name = "") {
  const interop::NbdClient client(server.socket(), export_name);
  INFO(server.log());
  CHECK(client.read_only());
  CHECK(client.read(0, 512).size() == 512);
  CHECK_THAT(server.log(), Contains(why));
}

std::string empty_image(const TempDirectory& folder) {
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "1M"});
  return image;
}

}  // namespace

TEST_CASE("an image that cannot be written is served read-only, and the reason is logged",
          "[write-errors]") {
  const TempDirectory folder;
  const std::string image = empty_image(folder);
  SECTION("-r") {
    WritingServer server({image}, {"-r"});
    check_read_only(server, "");
    // It holds no lock that a reader would meet.
    WritingServer second({image}, {"-r"});
    check_read_only(second, "");
  }
  SECTION("a snapshot") {
    test::qemu_img({"snapshot", "-c", "one", image});
    WritingServer server({image});
    check_read_only(server, "", "snapshot:one");
    CHECK_FALSE(interop::NbdClient(server.socket(), "").read_only());
    server.stop();
    WritingServer only({image, "snapshot=one"});
    check_read_only(only, "");
  }
  SECTION("the corrupt bit") {
    const std::byte corrupt{2};
    support::patch_file(image, 79, {&corrupt, 1});
    const Bytes before = support::read_file(image);
    WritingServer server({image});
    check_read_only(server, "the image is marked corrupt");
    server.stop();
    CHECK((support::read_file(image) == before));
  }
  SECTION("a file that is read-only") {
    // For root, a file is read-only only without the capability to override it.
    support::run_ok({"chmod", "444", image});
    const auto outcome =
        support::run({"setpriv", "--bounding-set=-dac_override", "nbdkit", "-U", "-",
                      tool_test::plugin(), image, "--run", "nbdinfo \"$uri\""});
    INFO(outcome.describe());
    if (!test::server_ends()) return;
    REQUIRE(outcome.ok());
    CHECK_THAT(outcome.out, Contains("is_read_only: true"));
    CHECK_THAT(outcome.err, Contains("served read-only") && Contains("Permission denied"));
  }
}
