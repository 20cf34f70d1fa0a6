// Servers that disappear during a copy, some of which come back.

#include <atomic>
#include <chrono>
#include <thread>

#include "copy/source/nbd_source.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/copy/memory_sink.h"
#include "tests/copy/restartable_server.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::NbdSource;
using support::TempDirectory;
using test::RestartableServer;

namespace {

using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;
using std::chrono::milliseconds;

constexpr size_t kDiskSize = (48 << 20) + 37 * 512;

Words slow_file(const std::string& path) {
  return {"nbdkit", "-f", "--exit-with-parent", "--unix", "SOCKET", "--filter=delay",
          "file",   path, "rdelay=4ms"};
}

// Calls `then` each time that the copy has completed one of `parts` equal parts of the disk.
class Milestones {
 public:
  Milestones(test::Watcher& watcher, unsigned parts, std::function<void()> then) {
    watcher.on_update = [this, &watcher, parts, then = std::move(then)](uint64_t done) {
      if (next_ >= parts || done < watcher.total / (parts + 1) * (next_ + 1)) return;
      ++next_;
      then();
    };
  }
  unsigned reached() const { return next_; }

 private:
  unsigned next_ = 0;
};

}  // namespace

TEST_CASE("a server that is killed and restarted does not change the result", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 1, kDiskSize);
  const auto expected = support::read_file(folder / "raw");
  Words command = slow_file(folder / "raw");
  unsigned connections = 4;
  SECTION("several connections") {}
  SECTION("one connection, which also requests block status") {
    connections = 1;
  }
  SECTION("one connection, since the server permits no more") {
    command.insert(command.begin() + 5, "--filter=multi-conn");
    command.push_back("multi-conn-mode=disable");
  }
  SECTION("qemu-nbd") {
    command = {"qemu-nbd",        "-r",          "-t", "-f", "raw", "--shared=0",
               "--socket=SOCKET", folder / "raw"};
  }
  RestartableServer server(command);
  const Cancel cancel;
  Stop stop(cancel);
  NbdSource::Options options;
  options.tuning.retries = 20;  // a server on a busy machine may come back late
  options.tuning.connections = connections;
  options.tuning.request_size = 64 << 10;
  auto source = NbdSource::open(server.uri(), options, stop);
  REQUIRE_OK(source);
  test::Watcher watcher;
  std::vector<std::thread> restarts;
  const Milestones milestones(watcher, 3, [&] {
    for (std::thread& it : restarts)
      if (it.joinable()) it.join();
    server.kill();
    restarts.emplace_back([&] {
      std::this_thread::sleep_for(milliseconds(150));
      server.start();
    });
  });
  test::MemorySink sink(kDiskSize, 16);
  const auto copied = test::run_into(**source, sink, watcher, stop);
  for (std::thread& it : restarts)
    if (it.joinable()) it.join();
  REQUIRE_OK(copied);
  CHECK(milestones.reached() == 3);
  CHECK_FALSE(watcher.fell);
  CHECK(sink.bytes == expected);
}

TEST_CASE("a server that disconnects properly is reconnected, too", "[copy]") {
  // nbdkit answers ESHUTDOWN while it ends.
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 2, kDiskSize);
  const auto expected = support::read_file(folder / "raw");
  RestartableServer server(slow_file(folder / "raw"));
  const Cancel cancel;
  Stop stop(cancel);
  NbdSource::Options options;
  options.tuning.retries = 20;
  auto source = NbdSource::open(server.uri(), options, stop);
  REQUIRE_OK(source);
  test::Watcher watcher;
  std::thread restart;
  const Milestones milestones(watcher, 1, [&] {
    restart = std::thread([&] { server.start(); });  // ends the old one with SIGTERM
  });
  test::MemorySink sink(kDiskSize, 16);
  const auto copied = test::run_into(**source, sink, watcher, stop);
  restart.join();
  REQUIRE_OK(copied);
  CHECK(sink.bytes == expected);
}

TEST_CASE("a server that returns with another disk is an error", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 3, kDiskSize);
  support::write_file(folder / "other", std::vector<std::byte>(kDiskSize + 512));
  RestartableServer server(slow_file(folder / "raw"));
  const Cancel cancel;
  Stop stop(cancel);
  NbdSource::Options options;
  options.tuning.retries = 20;
  auto source = NbdSource::open(server.uri(), options, stop);
  REQUIRE_OK(source);
  test::Watcher watcher;
  const Milestones milestones(watcher, 1, [&] {
    server.kill();
    server.start(slow_file(folder / "other"));
  });
  test::MemorySink sink(kDiskSize, 16);
  const auto failed = test::run_into(**source, sink, watcher, stop);
  REQUIRE_FAILS_WITH(failed, "another disk");
  CHECK(failed.error().message().find(server.uri()) == 0);
}

TEST_CASE("a server that does not return is an error", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 4, kDiskSize);
  for (const unsigned retries : {0u, 1u, 3u}) {
    INFO(retries);
    RestartableServer server(slow_file(folder / "raw"));
    const Cancel cancel;
    Stop stop(cancel);
    NbdSource::Options options;
    options.tuning.retries = retries;
    auto source = NbdSource::open(server.uri(), options, stop);
    REQUIRE_OK(source);
    test::Watcher watcher;
    Clock::time_point killed;
    const Milestones milestones(watcher, 1, [&] {
      server.kill();
      killed = Clock::now();
    });
    test::MemorySink sink(kDiskSize, 16);
    const auto failed = test::run_into(**source, sink, watcher, stop);
    const auto waited = Clock::now() - killed;
    REQUIRE_FALSE(failed.has_value());
    INFO(failed.error().message());
    CHECK(failed.error().message().find(server.uri()) == 0);
    CHECK((failed.error().message().find("gave up") == std::string::npos) == (retries == 0));
    // The waits are 0.1 + 0.2 + 0.4 seconds.
    if (retries == 3) CHECK(waited >= milliseconds(700));
    CHECK(waited < milliseconds(30'000));
  }
}

TEST_CASE("a user can cancel while a reconnect is waiting", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 5, kDiskSize);
  RestartableServer server(slow_file(folder / "raw"));
  Cancel cancel;
  Stop stop(cancel);
  NbdSource::Options options;
  options.tuning.retries = 1000;
  auto source = NbdSource::open(server.uri(), options, stop);
  REQUIRE_OK(source);
  test::Watcher watcher;
  std::atomic<Clock::rep> asked{0};
  std::thread user;
  const Milestones milestones(watcher, 1, [&] {
    server.kill();
    user = std::thread([&] {
      std::this_thread::sleep_for(milliseconds(1000));
      asked = Clock::now().time_since_epoch().count();
      cancel.request();
    });
  });
  test::MemorySink sink(kDiskSize, 16);
  const auto cancelled = test::run_into(**source, sink, watcher, stop);
  const auto waited = Clock::now().time_since_epoch() - Clock::duration(asked.load());
  user.join();
  REQUIRE_FALSE(cancelled.has_value());
  CHECK(cancelled.error().kind() == Error::Kind::kCancelled);
  CHECK(waited < milliseconds(20'000));
}
