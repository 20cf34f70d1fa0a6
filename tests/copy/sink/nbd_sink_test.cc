// Copies into all kinds of NBD servers.

#include "copy/sink/nbd_sink.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "copy/source/local_source.h"
#include "copy/source/nbd_source.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/copy/memory_sink.h"
#include "tests/copy/restartable_server.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::LocalSource;
using copy::NbdSink;
using copy::NbdSource;
using nbd::NbdTarget;
using support::read_file;
using support::run_ok;
using support::TempDirectory;
using support::write_file;
using test::RestartableServer;

namespace {

using Words = std::vector<std::string>;
using std::chrono::milliseconds;

constexpr size_t kDiskSize = (6 << 20) + 37 * 512;

// Copies the raw file `from` into the server.
Result<void> copy_to(const NbdTarget& target, const std::string& from,
                     const NbdSink::Options& options, test::Watcher& watcher,
                     unsigned threads = 3) {
  const Cancel cancel;
  Stop stop(cancel);
  ASSIGN_OR_RETURN(const auto source, LocalSource::open(from, {qcow2::Format::kRaw, "", false}));
  ASSIGN_OR_RETURN(const auto sink, NbdSink::open(target, options, source->size(), stop));
  return test::run_into(*source, *sink, watcher, stop, threads);
}

Result<void> copy_to(const NbdTarget& target, const std::string& from,
                     const NbdSink::Options& options = {}) {
  test::Watcher watcher;
  return copy_to(target, from, options, watcher);
}

// Returns the target of an nbdkit that is started for one copy.
NbdTarget nbdkit(Words arguments) {
  arguments.insert(arguments.begin(), "nbdkit");
  return NbdTarget{"", std::move(arguments)};
}

void fill(const std::string& path, size_t size, std::byte with = std::byte{0xa5}) {
  write_file(path, std::vector<std::byte>(size, with));
}

}  // namespace

TEST_CASE("the disk is written correctly to servers with any capabilities", "[copy]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", seed, kDiskSize);
  const auto expected = read_file(folder / "raw");
  const std::string to = folder / "to";
  const std::vector<Words> servers{
      {"file", to},
      {"--no-sr", "file", to},
      {"--filter=multi-conn", "file", to, "multi-conn-mode=disable"},
      {"--filter=noparallel", "file", to, "serialize=connections"},
      {"--filter=delay", "file", to, "wdelay=2ms"},
      {"--filter=noextents", "file", to},
      // Zeros must be written as data, but only where the server does not report zeros.
      {"--filter=nozero", "file", to},
      {"--filter=nozero", "--filter=noextents", "file", to},
      {"--filter=nozero", "file", to, "zeromode=emulate"},
      {"--filter=nozero", "file", to, "zeromode=plugin", "fastzeromode=none"},
      {"--filter=nozero", "file", to, "zeromode=plugin", "fastzeromode=slow"},
      // The server announces zero requests, but fails them.
      {"--filter=error", "file", to, "error-zero=EINVAL", "error-zero-rate=100%"},
      {"--filter=fua", "file", to, "fuamode=force"},
  };
  for (const Words& arguments : servers) {
    for (const bool several : {false, true}) {
      INFO(support::shell_line(arguments) << (several ? ", several" : ", one"));
      fill(to, kDiskSize);
      NbdSink::Options options;
      options.tuning.connections = several ? 4 : 1;
      options.tuning.requests = several ? 16 : 1;
      options.tuning.request_size = several ? 16 << 10 : 1 << 20;
      options.granularity = several ? 4096 : 64 << 10;
      REQUIRE_OK(copy_to(nbdkit(arguments), folder / "raw", options));
      CHECK(read_file(to) == expected);
    }
  }
}

TEST_CASE("writes to a server respect its block sizes", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 1, kDiskSize);
  const auto expected = read_file(folder / "raw");
  const std::string to = folder / "to";
  const size_t rounded = (kDiskSize + 4095) / 4096 * 4096;
  for (const char* zero : {"--filter=nozero", "--filter=nofilter"}) {
    fill(to, rounded);
    REQUIRE_OK(copy_to(nbdkit({"--filter=blocksize-policy", zero, "file", to,
                               "blocksize-minimum=4K", "blocksize-preferred=16K",
                               "blocksize-maximum=32K", "blocksize-error-policy=error"}),
                       folder / "raw", {.granularity = 512}));
    auto written = read_file(to);
    // The last block belongs to the disk, and is zeros.
    CHECK(std::all_of(written.begin() + kDiskSize, written.end(),
                      [](std::byte b) { return b == std::byte{0}; }));
    written.resize(kDiskSize);
    CHECK(written == expected);
  }
}

TEST_CASE("qemu-nbd can be a destination", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 2, kDiskSize);
  const std::string to = folder / "to";
  for (const char* format : {"raw", "qcow2"})
    for (const char* shared : {"--shared=0", "--shared=1"}) {
      INFO(format << shared);
      run_ok({"qemu-img", "create", "-q", "-f", format, to, std::to_string(kDiskSize)});
      run_ok({"qemu-io", "-f", format, "-c", "write -q -P 0xa5 0 6M", to});
      REQUIRE_OK(copy_to(NbdTarget{"", {"qemu-nbd", "-f", format, shared, "--discard=unmap", to}},
                         folder / "raw"));
      const auto compared =
          support::run({"qemu-img", "compare", "-f", format, "-F", "raw", to, folder / "raw"});
      INFO(compared.describe());
      CHECK(compared.ok());
      ::unlink(to.c_str());
    }
}

TEST_CASE("data past the end of the disk is not changed", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 3, kDiskSize);
  fill(folder / "to", kDiskSize + 100000);
  REQUIRE_OK(copy_to(nbdkit({"file", folder / "to"}), folder / "raw"));
  auto written = read_file(folder / "to");
  CHECK(std::all_of(written.begin() + kDiskSize, written.end(),
                    [](std::byte b) { return b == std::byte{0xa5}; }));
  written.resize(kDiskSize);
  CHECK(written == read_file(folder / "raw"));
}

TEST_CASE("a destination that reads as zeros is not zeroed", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 4, kDiskSize);
  const auto renew = [&] {
    ::unlink((folder / "to").c_str());
    write_file(folder / "to", "");
    support::resize_file(folder / "to", kDiskSize);
  };
  const auto no_zeros = [&](const char* filter) {
    return nbdkit({"--filter=error", filter, "file", folder / "to", "error-zero=EIO",
                   "error-zero-rate=100%"});
  };
  // The server reports that it reads as zeros.
  renew();
  REQUIRE_OK(copy_to(no_zeros("--filter=nofilter"), folder / "raw"));
  CHECK(read_file(folder / "to") == read_file(folder / "raw"));
  // The user states that it reads as zeros.
  renew();
  REQUIRE_OK(
      copy_to(no_zeros("--filter=noextents"), folder / "raw", {.destination_is_zero = true}));
  CHECK(read_file(folder / "to") == read_file(folder / "raw"));
  // Neither reports that.
  renew();
  REQUIRE_FAILS_WITH(copy_to(no_zeros("--filter=noextents"), folder / "raw"), "Input/output error");
  // The statement is wrong.
  fill(folder / "to", kDiskSize);
  REQUIRE_FAILS_WITH(copy_to(no_zeros("--filter=nofilter"), folder / "raw"), "Input/output error");
}

TEST_CASE("a fresh image behind a server gets data only", "[copy]") {
  const TempDirectory folder;
  write_file(folder / "raw", "");
  support::resize_file(folder / "raw", uint64_t{64} << 30);
  support::patch_file(folder / "raw", uint64_t{5} << 30, std::vector<std::byte>(100, std::byte{1}));
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "to", "64G"});
  REQUIRE_OK(copy_to(NbdTarget{"", {"qemu-nbd", "-f", "qcow2", folder / "to"}}, folder / "raw"));
  CHECK(read_file(folder / "to").size() < 1 << 20);
  run_ok({"qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", folder / "to", folder / "raw"});
}

TEST_CASE("a terabyte of zeros takes few requests", "[copy]") {
  const TempDirectory folder;
  write_file(folder / "raw", "");
  support::resize_file(folder / "raw", uint64_t{1} << 40);
  support::patch_file(folder / "raw", uint64_t{700} << 30,
                      std::vector<std::byte>(100, std::byte{1}));
  // Zeroed at once; zeroed gap by gap; not zeroed, since the server reports zeros.
  for (const Words& mode :
       {Words{}, Words{"zeromode=plugin", "fastzeromode=none"}, Words{"zeromode=none"}}) {
    Words arguments{"--filter=noextents", "--filter=nozero", "memory", "1T"};
    if (mode.empty()) arguments.erase(arguments.begin() + 1);
    if (mode.size() == 1) arguments.erase(arguments.begin());
    arguments.insert(arguments.end(), mode.begin(), mode.end());
    const auto start = std::chrono::steady_clock::now();
    REQUIRE_OK(copy_to(nbdkit(arguments), folder / "raw"));
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
  }
}

TEST_CASE("a read-only server causes an error before anything starts", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 5, 1 << 20);
  fill(folder / "to", 1 << 20);
  REQUIRE_FAILS_WITH(copy_to(nbdkit({"-r", "file", folder / "to"}), folder / "raw"), "read-only");
  REQUIRE_FAILS_WITH(copy_to(nbdkit({"memory", "1M", "--", "-v"}), folder / "raw"), "ended");
  REQUIRE_FAILS_WITH(copy_to(nbdkit({"memory", "1048064"}), folder / "raw"),
                     "the disk of the server has 1048064 bytes, too few for 1048576 bytes");
  const auto untouched = read_file(folder / "to");
  CHECK(untouched == std::vector<std::byte>(1 << 20, std::byte{0xa5}));
}

TEST_CASE("a write error names the server", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 6, kDiskSize);
  for (const auto& [error, text] :
       {std::pair{"EIO", "Input/output error"}, std::pair{"ENOSPC", "No space left on device"}}) {
    const auto failed =
        copy_to(nbdkit({"--filter=error", "memory", "16M", std::string("error-pwrite=") + error,
                        "error-pwrite-rate=20%"}),
                folder / "raw", {.tuning = {.request_size = 16 << 10}});
    REQUIRE_FAILS_WITH(failed, text);
    CHECK(failed.error().message().starts_with("[ nbdkit --filter=error memory"));
  }
}

TEST_CASE("a copy that cannot be flushed is an error", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 11, 1 << 20);
  REQUIRE_FAILS_WITH(
      copy_to(nbdkit({"eval", "get_size=echo 1M", "pread=exit 1", "pwrite=cat >/dev/null",
                      "can_write=exit 0", "can_flush=exit 0",
                      "flush=echo EIO the disk is gone >&2; exit 1"}),
              folder / "raw"),
      "Input/output error");
}

namespace {

constexpr size_t kLargeDisk = 48 << 20;

Words slow(const std::string& plugin, const std::string& argument) {
  return {"nbdkit", "-f",     "--exit-with-parent", "--unix", "SOCKET", "--filter=delay",
          plugin,   argument, "wdelay=4ms"};
}

// Kills and restarts the server after one third and after two thirds of the copy.
struct Restarts {
  Restarts(test::Watcher& watcher, RestartableServer& server, unsigned most) {
    watcher.on_update = [this, &watcher, &server, most](uint64_t done) {
      if (count >= most || done < watcher.total / (most + 1) * (count + 1)) return;
      ++count;
      server.kill();
      server.start();
    };
  }
  unsigned count = 0;
};

}  // namespace

TEST_CASE("a destination that dies and restarts with its data is continued", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 7, kLargeDisk);
  const std::string to = folder / "to";
  fill(to, kLargeDisk);
  Words command = slow("file", to);
  NbdSink::Options options;
  options.tuning.retries = 20;  // a server on a busy machine may come back late
  options.tuning.request_size = 64 << 10;
  SECTION("several connections") {}
  SECTION("one connection") {
    options.tuning.connections = 1;
  }
  SECTION("without zero requests") {
    command.insert(command.begin() + 5, "--filter=nozero");
  }
  RestartableServer server(command);
  test::Watcher watcher;
  Restarts restarts(watcher, server, 3);
  REQUIRE_OK(copy_to(NbdTarget{server.uri(), {}}, folder / "raw", options, watcher));
  CHECK(restarts.count == 3);
  CHECK(read_file(to) == read_file(folder / "raw"));
}

TEST_CASE("a destination may die at any moment", "[copy]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  support::Random random(seed);
  const TempDirectory folder;
  const std::string to = folder / "to";
  for (uint64_t i = 0; i < support::iterations(2); ++i) {
    // Until a flush, QEMU keeps mappings only in memory, and a kill loses some of them.
    const bool qcow2 = random.chance(50);
    test::make_lived_in_raw(folder / "raw", seed + i, kLargeDisk);
    Words command = slow("file", to);
    if (qcow2) {
      run_ok({"qemu-img", "create", "-q", "-f", "qcow2", to, std::to_string(kLargeDisk)});
      command = {"qemu-nbd", "-t", "-f", "qcow2", "--shared=0", "--socket=SOCKET", to};
    } else {
      fill(to, kLargeDisk);
    }
    RestartableServer server(command);
    NbdSink::Options options;
    options.tuning.connections = 1 + static_cast<unsigned>(random.below(4));
    options.tuning.request_size = 16 << 10;
    options.tuning.retries = 100;
    std::atomic<bool> begun = false;
    std::atomic<bool> over = false;
    std::thread fate([&] {
      while (!begun && !over) std::this_thread::sleep_for(milliseconds(1));
      while (true) {
        const auto next = std::chrono::steady_clock::now() + milliseconds(random.between(5, 600));
        while (std::chrono::steady_clock::now() < next) {
          if (over) return;
          std::this_thread::sleep_for(milliseconds(1));
        }
        server.kill();
        server.start();
      }
    });
    test::Watcher watcher;
    watcher.on_update = [&](uint64_t) { begun = true; };
    const auto copied = copy_to(NbdTarget{server.uri(), {}}, folder / "raw", options, watcher);
    over = true;
    fate.join();
    if (!copied) {
      // An error is allowed only if data may have been lost.
      INFO(copied.error().message());
      CHECK(qcow2);
      CHECK(copied.error().message().find("has lost data that was written") != std::string::npos);
    } else {
      server.kill();
      const auto compared = support::run(
          {"qemu-img", "compare", "-f", qcow2 ? "qcow2" : "raw", "-F", "raw", to, folder / "raw"});
      INFO(compared.describe());
      CHECK(compared.ok());
    }
    ::unlink(to.c_str());
  }
}

TEST_CASE("a destination that has lost data is an error", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 8, kLargeDisk);
  RestartableServer server(slow("memory", std::to_string(kLargeDisk)));
  test::Watcher watcher;
  Restarts restarts(watcher, server, 1);
  NbdSink::Options options;
  options.tuning.retries = 20;
  const auto failed = copy_to(NbdTarget{server.uri(), {}}, folder / "raw", options, watcher);
  REQUIRE_FAILS_WITH(failed, "has lost data that was written");
  REQUIRE_FAILS_WITH(failed, "run the command again");
  CHECK(failed.error().message().find(server.uri()) == 0);
}

TEST_CASE("a destination that does not come back is an error", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 9, kLargeDisk);
  for (const unsigned retries : {0u, 2u}) {
    RestartableServer server(slow("memory", std::to_string(kLargeDisk)));
    test::Watcher watcher;
    bool killed = false;
    watcher.on_update = [&](uint64_t) {
      if (!std::exchange(killed, true)) server.kill();
    };
    NbdSink::Options options;
    options.tuning.retries = retries;
    const auto failed = copy_to(NbdTarget{server.uri(), {}}, folder / "raw", options, watcher);
    REQUIRE_FAILS_WITH(failed, "run the command again");
    CHECK(killed);
  }
}

TEST_CASE("a server without flush must not disconnect", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 10, 4 << 20);
  fill(folder / "to", 4 << 20);
  // A server without can_flush, which writes with plain dd.
  RestartableServer server({"nbdkit", "-f", "--exit-with-parent", "--unix", "SOCKET", "eval",
                            "get_size=stat -c %s \"" + (folder / "to") + "\"", "can_write=exit 0",
                            "pread=dd if=\"" + (folder / "to") +
                                "\" iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none",
                            "pwrite=dd of=\"" + (folder / "to") +
                                "\" oflag=seek_bytes conv=notrunc seek=$4 status=none"});
  NbdSink::Options options;
  options.tuning.request_size = 64 << 10;
  test::Watcher watcher;
  REQUIRE_OK(copy_to(NbdTarget{server.uri(), {}}, folder / "raw", options, watcher));
  CHECK(read_file(folder / "to") == read_file(folder / "raw"));
  test::Watcher again;
  Restarts restarts(again, server, 1);
  REQUIRE_FAILS_WITH(copy_to(NbdTarget{server.uri(), {}}, folder / "raw", options, again),
                     "it is unknown what the server has kept");
}
