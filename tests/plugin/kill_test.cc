// The server is killed at any moment: what was flushed is there, and the image is sound.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <thread>

#include "tests/interop/qemu.h"
#include "tests/plugin/traffic.h"
#include "tests/plugin/writing_server.h"
#include "tests/plugin/written_image.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

using support::Random;
using support::TempDirectory;
using test::Bytes;
using test::Request;
using test::Traffic;
using test::WritingServer;
using test::WrittenImage;

namespace {

// What each byte of the disk may be after a crash: what it was when it was last made durable, or
// what any request that began since has put there.
class Model {
 public:
  explicit Model(Bytes bytes)
      : durable_(std::move(bytes)), trimmed_(durable_.size()), version_(durable_.size()) {}

  // A request has ended, well or with an error, or will never end.
  void add(const Request& request) {
    const bool flush = request.kind == Request::Kind::kFlush;
    if (!flush) changes_.push_back(request);
    const bool durable = flush || (request.flags & LIBNBD_CMD_FLAG_FUA) != 0;
    if (!durable || request.error != 0 || request.ended == 0) return;
    settle([&](const Request& it) {
      return flush ? it.ended != 0 && it.ended < request.begun : it.begun == request.begun;
    });
  }

  // The first byte that is none of that; empty: there is none.
  std::string complaint(const Bytes& found) const {
    std::vector<char> right(found.size());
    for (size_t at = 0; at < found.size(); ++at)
      right[at] = found[at] == durable_[at] || (trimmed_[at] != 0 && found[at] == std::byte{0});
    for (const Request& it : changes_)
      for (uint64_t i = 0; i < it.length; ++i)
        if (version_[it.at + i] < it.begun && found[it.at + i] == byte_of(it, i))
          right[it.at + i] = 1;
    const auto wrong = std::find(right.begin(), right.end(), char{0});
    if (wrong == right.end()) return {};
    const auto at = static_cast<size_t>(wrong - right.begin());
    std::string text =
        fmt::format("byte {} is {}, and {} bytes are wrong; {} was durable", at,
                    std::to_integer<int>(found[at]), std::count(wrong, right.end(), char{0}),
                    std::to_integer<int>(durable_[at]));
    for (const Request& it : changes_)
      if (it.at <= at && at < it.at + it.length) text += "\n  then " + it.describe();
    return text;
  }

 private:
  static std::byte byte_of(const Request& request, uint64_t i) {
    return request.kind == Request::Kind::kWrite ? request.bytes[i] : std::byte{0};
  }

  template <typename Durable>
  void settle(Durable durable) {
    for (const Request& it : changes_) {
      if (!durable(it)) continue;
      for (uint64_t at = it.at; at < it.at + it.length; ++at) {
        if (version_[at] > it.begun) continue;
        // What is older than a write that is durable is gone; a trim leaves it there, or not.
        if (it.kind == Request::Kind::kTrim) {
          trimmed_[at] = 1;
          continue;
        }
        durable_[at] = byte_of(it, at - it.at);
        trimmed_[at] = 0;
        version_[at] = it.begun;
      }
    }
    std::erase_if(changes_, durable);
  }

  Bytes durable_;
  std::vector<char> trimmed_;
  std::vector<uint64_t> version_;  // `begun` of the write that made durable_
  std::vector<Request> changes_;   // not durable, in the order of their ends
};

// Requests on several connections until the server is killed amid them.
void write_and_kill(WritingServer& server, Model& model, uint64_t cluster_size, Random& random) {
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
      if (!slow) model.add(done);
    }
  }
  if (random.chance(50)) std::this_thread::sleep_for(std::chrono::microseconds(random.below(3000)));
  server.kill();
  // Answers that were on their way count: what they promise was done.
  while (!traffic.empty())
    for (Request& done : traffic.wait()) {
      if (done.error != 0) done.ended = 0;
      const bool slow = (done.flags & LIBNBD_CMD_FLAG_FAST_ZERO) != 0 && done.error == ENOTSUP;
      if (!slow) model.add(done);
    }
}

// Leaks are what a crash may leave.  The counts of an image with lazy refcounts that was left dirty
// are as they may be until it is mended.
void check_after_crash(const WrittenImage& image, const TempDirectory& folder) {
  const bool lazy = image.shape.lazy_refcounts;
  auto check = support::run({"qemu-img", "check", "-f", "qcow2", image.path});
  INFO(check.describe());
  if (!lazy) REQUIRE((check.exit_code == 0 || check.exit_code == 3));
  // On a copy: the server shall find it as it was left.
  const std::string copy = folder / "copy.qcow2";
  support::run_ok({"cp", "--sparse=always", image.path, copy});
  const auto mended =
      support::run({"qemu-img", "check", "-f", "qcow2", "-r", lazy ? "all" : "leaks", copy});
  INFO(mended.describe());
  REQUIRE(mended.exit_code == 0);
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
      Model model(std::move(contents));
      {
        WritingServer server(parameters);
        write_and_kill(server, model, image.cluster_size(), random);
      }
      check_after_crash(image, folder);
      // The same counts for all that read it: QEMU, which may not mend it, and then our server.
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
    // The server uses up what leaks there are, or leaves them.
    const auto check = support::run({"qemu-img", "check", "-f", "qcow2", image.path});
    INFO(check.describe());
    REQUIRE((check.exit_code == 0 || check.exit_code == 3));
    if (image.shape.lazy_refcounts) REQUIRE(check.exit_code == 0);
  }
}
