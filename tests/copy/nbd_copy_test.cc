// Copies from all kinds of NBD servers, working and broken.

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "copy/copier.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::CopyOptions;
using qcow2::CompressionType;
using support::list_directory;
using support::NbdServer;
using support::read_file;
using support::run_ok;
using support::TempDirectory;
using test::from_to;
using test::run_copy;

namespace {

using Names = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

constexpr size_t kDiskSize = (6 << 20) + 37 * 512;

}  // namespace

TEST_CASE("a copy over NBD equals the local copy, for any server and order of answers", "[copy]") {
  const uint64_t seed = support::base_seed();
  INFO("VIRT_COMPACT_SEED=" << seed);
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", seed, kDiskSize);
  CopyOptions local = from_to(folder / "raw", folder / "local");
  local.threads = 1;
  SECTION("plain") {}
  SECTION("zstd") {
    local.compression.type = CompressionType::kZstd;
  }
  SECTION("small clusters") {
    local.image.cluster_bits = 9;
  }
  REQUIRE_OK(run_copy(local));
  REQUIRE(test::qemu_complaint(folder / "local", folder / "raw") == "");
  const auto expected = read_file(folder / "local");

  const std::vector<Names> servers{
      {"file", folder / "raw"},
      // Without structured replies there is no block status: everything is data.
      {"--no-sr", "file", folder / "raw"},
      // Accepts one client at a time.
      {"--filter=multi-conn", "file", folder / "raw", "multi-conn-mode=disable"},
      // Answers late and out of order.
      {"--filter=delay", "--filter=noextents", "file", folder / "raw", "rdelay=3ms"},
      // Accepts only whole blocks, and only a few of them per request.
      {"--filter=blocksize-policy", "--filter=truncate", "file", folder / "raw", "round-up=64K",
       "blocksize-minimum=64K", "blocksize-preferred=64K", "blocksize-maximum=128K",
       "blocksize-error-policy=error"},
  };
  for (const auto& arguments : servers) {
    INFO(support::shell_line(arguments));
    const NbdServer server = NbdServer::nbdkit(arguments);
    const bool rounded = arguments[0] == "--filter=blocksize-policy";
    for (const unsigned connections : {1u, 4u}) {
      CopyOptions options = local;
      options.source = server.uri();
      options.destination = folder / "out";
      options.overwrite = true;
      options.threads = connections;
      options.nbd.connections = connections;
      options.nbd.requests = connections == 1 ? 1 : 16;
      options.nbd.request_size = connections == 1 ? 1 << 20 : 16 << 10;
      const auto summary = run_copy(options);
      REQUIRE_OK(summary);
      CHECK_FALSE(summary->source.has_value());
      if (rounded)
        CHECK(support::run({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", folder / "out",
                            folder / "raw"})
                  .ok());
      else
        CHECK(read_file(folder / "out") == expected);
    }
  }
}

TEST_CASE("qemu-nbd can be a source, even for one client only", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 1, kDiskSize);
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "src"});
  for (const char* shared : {"--shared=1", "--shared=0"}) {
    INFO(shared);
    const NbdServer server = NbdServer::qemu_nbd({shared, "--format=qcow2", folder / "src"});
    CopyOptions options = from_to(server.uri(), folder / "out");
    options.overwrite = true;
    REQUIRE_OK(run_copy(options));
    CHECK(test::qemu_complaint(folder / "out", folder / "raw") == "");
  }
}

TEST_CASE("nothing of a huge empty disk is read over NBD", "[copy]") {
  const TempDirectory folder;
  const NbdServer server = NbdServer::nbdkit({"null", "16T"});
  const auto summary = run_copy(from_to(server.uri(), folder / "out"));
  REQUIRE_OK(summary);
  CHECK(summary->data_clusters == 0);
  CHECK(summary->found_zero_clusters == 0);
  run_ok({"qemu-img", "check", "-q", "-f", "qcow2", folder / "out"});
}

TEST_CASE("a hole that the server does not report as zeros is read", "[copy]") {
  // nbdkit's sh plugin reports the given extents unchanged.
  const TempDirectory folder;
  support::write_file(folder / "raw", std::vector<std::byte>(1 << 20, std::byte{'x'}));
  support::write_file(folder / "server",
                      "#!/bin/sh\n"
                      "case \"$1\" in\n"
                      "  thread_model) echo parallel ;;\n"
                      "  get_size) stat -c %s \"$RAW\" ;;\n"
                      "  pread) dd if=\"$RAW\" iflag=skip_bytes,count_bytes skip=$4 count=$3 "
                      "status=none ;;\n"
                      "  can_extents|can_multi_conn) exit 0 ;;\n"
                      "  extents) echo 0 512k hole; echo 512k 512k zero ;;\n"
                      "  *) exit 2 ;;\n"
                      "esac\n");
  REQUIRE(::chmod((folder / "server").c_str(), 0700) == 0);
  REQUIRE(::setenv("RAW", (folder / "raw").c_str(), 1) == 0);
  const NbdServer server = NbdServer::nbdkit({"sh", folder / "server"});
  const auto summary = run_copy(from_to(server.uri(), folder / "out"));
  ::unsetenv("RAW");
  REQUIRE_OK(summary);
  CHECK(summary->data_clusters == 8);
  run_ok({"qemu-io", "-r", "-f", "qcow2", "-c", "read -P 0x78 0 512k", "-c", "read -P 0 512k 512k",
          folder / "out"});
}

TEST_CASE("a server without block status is read completely", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 2, 1 << 20);
  for (const char* error : {"EINVAL", "ENOMEM", "EIO"}) {
    INFO(error);
    const NbdServer server =
        NbdServer::nbdkit({"--filter=error", "file", folder / "raw",
                           std::string("error-extents=") + error, "error-extents-rate=100%"});
    CopyOptions options = from_to(server.uri(), folder / "out");
    options.overwrite = true;
    REQUIRE_OK(run_copy(options));
    CHECK(test::qemu_complaint(folder / "out", folder / "raw") == "");
  }
}

TEST_CASE("a read error names the server", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 3, kDiskSize);
  const NbdServer server = NbdServer::nbdkit(
      {"--filter=error", "file", folder / "raw", "error-pread=EIO", "error-pread-rate=20%"});
  const auto failed = run_copy(from_to(server.uri(), folder / "out"));
  REQUIRE_FALSE(failed.has_value());
  INFO(failed.error().message());
  CHECK(failed.error().message().starts_with(server.uri()));
  CHECK(failed.error().message().find("Input/output error") != std::string::npos);
  CHECK(list_directory(folder.path()) == Names{"raw"});
}

TEST_CASE("a server that dies during the copy causes an error that names it", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 4, 64 << 20);
  for (const bool several : {false, true}) {
    NbdServer server = NbdServer::nbdkit({"--filter=delay", "file", folder / "raw", "rdelay=5ms"});
    test::Watcher watcher;
    bool killed = false;
    watcher.on_update = [&](uint64_t) {
      if (!killed) server.process().kill();
      killed = true;
    };
    CopyOptions options = from_to(server.uri(), folder / "out");
    options.nbd.connections = several ? 4 : 1;
    const Cancel cancel;
    const auto start = Clock::now();
    const auto failed = copy::copy(options, watcher, cancel);
    REQUIRE_FALSE(failed.has_value());
    INFO(failed.error().message());
    CHECK(killed);
    CHECK(failed.error().kind() == Error::Kind::kSystem);
    CHECK(failed.error().message().starts_with(server.uri()));
    CHECK(failed.error().message().find("nbd_") == std::string::npos);
    CHECK(Clock::now() - start < std::chrono::seconds(60));
    CHECK(list_directory(folder.path()) == Names{"raw"});
  }
}

TEST_CASE("without a server, there is no copy", "[copy]") {
  const TempDirectory folder;
  const std::string uri = "nbd+unix:///?socket=" + (folder / "socket");
  const auto failed = run_copy(from_to(uri, folder / "out"));
  REQUIRE_FALSE(failed.has_value());
  INFO(failed.error().message());
  CHECK(failed.error().message().starts_with(uri));
  CHECK(failed.error().message().find("No such file") != std::string::npos);
  CHECK(list_directory(folder.path()).empty());
  REQUIRE_FAILS_WITH(run_copy(from_to("nbd+unix:///", folder / "out")), "nbd+unix:///: ");
}

TEST_CASE("the user can cancel while a server hangs", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 5, 1 << 20);
  Cancel cancel;
  const auto cancelled_in_time = [&](const std::string& uri) {
    std::atomic<Clock::rep> asked{0};
    std::thread user([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      asked = Clock::now().time_since_epoch().count();
      cancel.request();
    });
    test::Watcher watcher;
    const auto cancelled = copy::copy(from_to(uri, folder / "out"), watcher, cancel);
    user.join();
    const auto waited = Clock::now().time_since_epoch() - Clock::duration(asked.load());
    REQUIRE_FALSE(cancelled.has_value());
    INFO(cancelled.error().message());
    CHECK(cancelled.error().kind() == Error::Kind::kCancelled);
    CHECK(waited < std::chrono::seconds(20));
  };
  SECTION("in a read") {
    const NbdServer server =
        NbdServer::nbdkit({"--filter=delay", "file", folder / "raw", "rdelay=60"});
    cancelled_in_time(server.uri());
  }
  SECTION("in block status") {
    const NbdServer server =
        NbdServer::nbdkit({"--filter=delay", "file", folder / "raw", "delay-extents=60"});
    cancelled_in_time(server.uri());
  }
  SECTION("in the greeting") {
    // A process listens but never answers.
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = folder / "mute";
    REQUIRE(path.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(fd, 10) == 0);
    cancelled_in_time("nbd+unix:///?socket=" + path);
    ::close(fd);
  }
}

TEST_CASE("invalid options for a server are refused", "[copy]") {
  const TempDirectory folder;
  const NbdServer server = NbdServer::nbdkit({"memory", "1M"});
  // The server accepts any export name. So the test fails unless the name in the URI is kept.
  CopyOptions options = from_to("nbd://127.0.0.1/disk", folder / "out");
  options.snapshot = "x";
  REQUIRE_FAILS_WITH(run_copy(options), "the URI names an export");
  options.source = server.uri();
  options.snapshot.clear();
  options.source_format = qcow2::Format::kQcow2;
  REQUIRE_FAILS_WITH(run_copy(options), server.uri());
  options.source_format = qcow2::Format::kRaw;
  REQUIRE_OK(run_copy(options));
}
