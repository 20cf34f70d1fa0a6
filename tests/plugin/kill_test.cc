// Kills the server at any moment. Flushed data must be there, and the image must be valid.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "tests/catch.h"
#include "tests/interop/qemu.h"
#include "tests/plugin/possible_bytes.h"
#include "tests/plugin/traffic.h"
#include "tests/plugin/writing_server.h"
#include "tests/plugin/written_image.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::Random;
using support::TempDirectory;
using test::Bytes;
using test::PossibleBytes;
using test::Request;
using test::Traffic;
using test::WritingServer;
using test::WrittenImage;

namespace {

// Records a request that has ended, with or without an error, or that will never end.
void add(PossibleBytes& model, const Request& request) {
  const bool ended = request.error == 0 && request.ended != 0;
  if (request.kind == Request::Kind::kFlush) {
    if (ended) model.flushed(request);
  } else if (ended && (request.flags & LIBNBD_CMD_FLAG_FUA) != 0) {
    model.surely(request);
  } else {
    model.maybe(request);
  }
}

// Sends requests on several connections until the server is killed.
void write_and_kill(WritingServer& server, PossibleBytes& model, uint64_t cluster_size,
                    Random& random) {
  static const std::vector<Request::Kind> kKinds{
      Request::Kind::kWrite, Request::Kind::kWrite, Request::Kind::kWrite, Request::Kind::kWrite,
      Request::Kind::kZero,  Request::Kind::kTrim,  Request::Kind::kFlush};
  Traffic traffic(server.socket(), 1 + random.below(4), 1 + random.below(6));
  const uint64_t requests = random.between(5, 150);
  for (uint64_t i = 0; i < requests; ++i) {
    if (const auto connection = traffic.idle(random)) {
      const Request::Kind kind = random.pick(kKinds);
      if (kind == Request::Kind::kFlush)
        traffic.submit(*connection, {});
      else if (auto request = draw_request(random, traffic, kind, cluster_size))
        traffic.submit(*connection, std::move(*request));
      if (random.chance(70)) continue;
    }
    for (const Request& done : traffic.wait()) {
      INFO(done.describe());
      const bool slow = (done.flags & LIBNBD_CMD_FLAG_FAST_ZERO) != 0 && done.error == ENOTSUP;
      REQUIRE((done.error == 0 || slow));
      if (!slow) add(model, done);
    }
  }
  if (random.chance(50)) std::this_thread::sleep_for(std::chrono::microseconds(random.below(3000)));
  server.kill();
  // Replies that were under way count: their requests were completed.
  while (!traffic.empty())
    for (Request& done : traffic.wait()) {
      if (done.error != 0) done.ended = 0;
      const bool slow = (done.flags & LIBNBD_CMD_FLAG_FAST_ZERO) != 0 && done.error == ENOTSUP;
      if (!slow) add(model, done);
    }
}

// A crash may leave leaks. A dirty image with lazy refcounts may have wrong refcounts until it is
// repaired.
void check_after_crash(const WrittenImage& image, const TempDirectory& folder) {
  const bool lazy = image.shape.lazy_refcounts;
  auto check = support::run({"qemu-img", "check", "-f", "qcow2", image.path});
  INFO(check.describe());
  if (!lazy) REQUIRE((check.exit_code == 0 || check.exit_code == 3));
  // Checks a copy, so that the server finds the image unchanged.
  const std::string copy = folder / "copy.qcow2";
  support::run_ok({"cp", "--sparse=always", image.path, copy});
  const auto repaired =
      support::run({"qemu-img", "check", "-f", "qcow2", "-r", lazy ? "all" : "leaks", copy});
  INFO(repaired.describe());
  REQUIRE(repaired.exit_code == 0);
  REQUIRE(interop::check_complaint(copy) == "");
}

}  // namespace

TEST_CASE("a server that is killed loses nothing that was flushed", "[write-kill]") {
  const uint64_t images = support::iterations(12);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const WrittenImage image = test::make_written_image(random, folder);
    CAPTURE(seed, image.kind);
    std::vector<std::string> parameters{image.path};
    if (random.chance(30)) parameters.emplace_back("coalesce-discard=true");
    if (random.chance(30)) parameters.emplace_back("detect-zeroes=unmap");
    Bytes contents = image.contents;
    for (int round = 0; round < 6; ++round) {
      CAPTURE(round, support::shell_line(parameters));
      PossibleBytes model(std::move(contents));
      {
        WritingServer server(parameters);
        write_and_kill(server, model, image.cluster_size(), random);
      }
      check_after_crash(image, folder);
      // QEMU, which must not repair it, and our server must read the same.
      contents = test::read_by_qemu(folder, image.path);
      REQUIRE(model.complaint(contents) == "");
    }
    WritingServer server(parameters);
    Traffic traffic(server.socket(), 1, 1);
    traffic.submit(0, Request{Request::Kind::kWrite, 0, 1, 0, {contents[0]}});
    REQUIRE(traffic.wait().at(0).error == 0);
    traffic.disconnect();
    server.stop();
    INFO(server.log());
    REQUIRE((test::read_by_qemu(folder, image.path) == contents));
    // The server reuses leaked clusters, or leaves them.
    const auto check = support::run({"qemu-img", "check", "-f", "qcow2", image.path});
    INFO(check.describe());
    REQUIRE((check.exit_code == 0 || check.exit_code == 3));
    if (image.shape.lazy_refcounts) REQUIRE(check.exit_code == 0);
  }
}
