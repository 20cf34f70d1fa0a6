// Runs the filter in a real server, and checks the requests below it.
#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/catch.h"
#include "tests/filters/filtered_server.h"
#include "tests/filters/writing_client.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"

using namespace vc;

using Catch::Contains;
using support::Random;
using test::FilteredServer;
using test::WritingClient;
using Requests = std::vector<std::string>;

namespace {

constexpr char kName[] = "coalesce-discard";
constexpr char k16[] = "coalesce-discard-granularity=16k";

// Start of the commands for --run.
constexpr char kQemuIo[] = "qemu-io -f raw -d unmap nbd+unix:///?socket=$unixsocket ";

std::vector<std::byte> bytes(size_t length, uint8_t value = 0xaa) {
  return std::vector<std::byte>(length, std::byte{value});
}

// Waits some seconds for `count` requests below the filter, and returns them.
Requests wait_for(FilteredServer& server, size_t count) {
  Requests all;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (all.size() < count && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    for (auto& it : server.requests()) all.push_back(std::move(it));
  }
  return all;
}

}  // namespace

TEST_CASE("trims of several connections make whole blocks", "[coalesce-discard]") {
  FilteredServer server(kName, {"memory", "1M", k16});
  WritingClient one(server.socket());
  WritingClient two(server.socket());
  one.trim(0, 10000);
  two.trim(16000, 30000);
  CHECK(server.requests() == Requests{"trim 16384+16384"});
  two.trim(10000, 6000);
  CHECK(server.requests() == Requests{"trim 0+16384"});
  one.trim(46000, 20000);
  CHECK(server.requests() == Requests{"trim 32768+32768"});
}

TEST_CASE("the granularity is the preferred size of the layer below", "[coalesce-discard]") {
  FilteredServer server(kName,
                        {"--filter=blocksize-policy", "memory", "1M", "blocksize-preferred=32768"});
  WritingClient client(server.socket());
  client.trim(0, 20000);
  client.trim(20000, 20000);
  CHECK(server.requests() == Requests{"trim 0+32768"});
}

TEST_CASE("a later write removes a held trim", "[coalesce-discard]") {
  FilteredServer server(kName, {"memory", "1M", k16});
  WritingClient one(server.socket());
  WritingClient two(server.socket());
  one.trim(0, 10000);
  two.write(5000, bytes(1));
  one.trim(10000, 6384);
  CHECK(server.requests() == Requests{"write 5000+1"});
  one.trim(20000, 10000);
  two.zero(20000, 1);
  one.trim(16384, 3616);
  one.trim(30000, 2768);
  CHECK(server.requests() == Requests{"zero 20000+1 trim"});
  one.trim(20000, 1);
  CHECK(server.requests() == Requests{"trim 16384+16384"});
}

TEST_CASE("fragments are sent before a flush, and at the end", "[coalesce-discard]") {
  FilteredServer server(kName, {"memory", "1M", k16});
  {
    WritingClient client(server.socket());
    client.trim(100, 9000);
    client.trim(20000, 100);
    client.flush();
    CHECK(server.requests() == Requests{"trim 4096+4096", "flush"});
    client.flush();
    CHECK(server.requests() == Requests{"flush"});
    client.trim(40000, 9000);
    CHECK(server.requests().empty());
  }
  CHECK(wait_for(server, 1) == Requests{"trim 40960+4096"});
  // The gatherer forgets the ranges of a disk without clients.
  WritingClient client(server.socket());
  client.trim(0, 100);
  client.trim(9100, 7284);
  client.flush();
  CHECK(server.requests() == Requests{"trim 12288+4096", "flush"});
}

TEST_CASE("the end of the server closes all connections", "[coalesce-discard]") {
  if (support::nbdkit_command().size() > 1) {
    WARN("skipped: nbdkit does not end by itself with this sanitizer");
    return;
  }
  const support::TempDirectory folder;
  const std::string log = folder / "log";
  // The client disconnects without a flush.
  support::run_ok({"nbdkit", "-f", "-U", "-", "--filter=" + test::filter(kName), "--filter=log",
                   "memory", "1M", k16, "logfile=" + log, "--run",
                   std::string(kQemuIo) + "-c 'discard 4k 8k' -c abort || true"});
  const auto lines = support::run_ok({"cat", log}).out;
  CHECK_THAT(lines, Contains("Trim id=1 offset=0x1000 count=0x2000"));
}

TEST_CASE("fragments are zeroed on request", "[coalesce-discard]") {
  FilteredServer server(kName, {"memory", "1M", k16, "zero-fragments=true"});
  WritingClient client(server.socket());
  client.write(0, bytes(32768));
  client.trim(100, 900);
  client.flush();
  CHECK(server.requests() == Requests{"write 0+32768", "zero 100+900 trim", "flush"});
  CHECK(client.read(100, 900) == bytes(900, 0));
  CHECK(client.read(0, 100) == bytes(100));
  CHECK(client.read(1000, 100) == bytes(100));
  client.trim(1000, 20000);
  client.trim(0, 100);
  client.flush();
  CHECK(server.requests() == Requests{"trim 0+16384", "zero 16384+4616 trim", "flush"});
}

TEST_CASE("fragments past the limit are not held", "[coalesce-discard]") {
  FilteredServer server(kName, {"memory", "1M", k16, "coalesce-discard-limit=1"});
  WritingClient client(server.socket());
  client.trim(0, 5000);
  client.trim(16384, 5000);
  CHECK(server.requests() == Requests{"trim 0+4096"});
  client.trim(5000, 11384);
  client.trim(21384, 11384);
  // The first block would be complete, but its start was written.
  CHECK(server.requests() == Requests{"trim 16384+16384"});
}

TEST_CASE("trims are joined per export name, but writes count for all names",
          "[coalesce-discard]") {
  // The memory plugin has one disk for all export names.
  FilteredServer server(kName, {"memory", "1M", k16});
  WritingClient one(server.socket(), "one");
  WritingClient two(server.socket(), "two");
  one.trim(0, 10000);
  two.trim(10000, 6384);
  CHECK(server.requests().empty());
  two.write(9000, bytes(1));
  one.trim(10000, 6384);
  CHECK(server.requests() == Requests{"write 9000+1"});
  two.trim(0, 10000);
  CHECK(server.requests() == Requests{"trim 0+16384"});
}

TEST_CASE("a write waits for a trim of its bytes, others do not", "[coalesce-discard]") {
  FilteredServer server(kName, {"--filter=delay", "memory", "1M", k16, "delay-trim=1"});
  WritingClient one(server.socket());
  WritingClient two(server.socket());
  one.trim(0, 10000);
  std::thread trim([&] { one.trim(10000, 6384); });
  CHECK(wait_for(server, 1) == Requests{"trim 0+16384"});
  two.write(16384, bytes(100));
  two.write(5000, bytes(100));
  trim.join();
  CHECK(server.events() == Requests{"write 16384+100", "write 16384+100 done", "trim 0+16384 done",
                                    "write 5000+100", "write 5000+100 done"});
  CHECK(two.read(5000, 100) == bytes(100));
}

TEST_CASE("a trim leaves out what is being written", "[coalesce-discard]") {
  FilteredServer server(kName, {"--filter=delay", "memory", "1M", k16, "delay-write=1"});
  WritingClient one(server.socket());
  WritingClient two(server.socket());
  std::thread write([&] { one.write(20000, bytes(100)); });
  CHECK(wait_for(server, 1) == Requests{"write 20000+100"});
  // Not sent, neither now nor after the write.
  two.trim(0, 4 * 16384);
  two.flush();
  const auto before = server.requests();
  write.join();
  two.trim(16384, 3616);
  two.flush();
  CHECK(before == Requests{"trim 0+16384", "trim 32768+32768", "trim 20480+12288", "flush"});
  CHECK(one.read(20000, 100) == bytes(100));
  CHECK(server.requests() == Requests{"flush"});
  two.trim(20000, 100);
  CHECK(server.requests() == Requests{"trim 16384+16384"});
}

TEST_CASE("an error fails the trim that caused it, and fragments cause no errors",
          "[coalesce-discard]") {
  support::TempDirectory folder;
  const std::string trigger = folder / "fail";
  FilteredServer server(kName, {"--filter=error", "memory", "1M", k16, "error-trim=EIO",
                                "error-trim-rate=100%", "error-trim-file=" + trigger});
  WritingClient client(server.socket());
  client.trim(0, 10000);
  support::run_ok({"touch", trigger});
  client.trim(20000, 12000);
  client.flush();
  CHECK_THROWS_WITH(client.trim(10000, 6384), Contains("Input/output error"));
  CHECK(server.requests() == Requests{"trim 0+8192", "trim 20480+8192", "flush", "trim 0+16384"});
  support::run_ok({"rm", trigger});
  // A failed trim is forgotten.
  client.trim(10000, 6384);
  CHECK(server.requests().empty());
  client.trim(0, 10000);
  CHECK(server.requests() == Requests{"trim 0+16384"});
  client.write(0, bytes(16384));
  CHECK(client.read(0, 16384) == bytes(16384));
}

TEST_CASE("FUA of a trim applies to the requests that it causes", "[coalesce-discard]") {
  const auto requests = [](const std::string& mode) {
    FilteredServer server(kName, {"--filter=fua", "memory", "1M", k16, "fuamode=" + mode});
    WritingClient client(server.socket());
    client.trim(0, 20000, LIBNBD_CMD_FLAG_FUA);
    client.trim(20000, 10, LIBNBD_CMD_FLAG_FUA);
    return server.requests();
  };
  CHECK(requests("native") == Requests{"trim 0+16384 fua"});
  CHECK(requests("emulate") == Requests{"trim 0+16384", "flush"});
}

TEST_CASE("a client that only reads, or a layer that cannot trim, needs nothing",
          "[coalesce-discard]") {
  {
    FilteredServer server(kName, {"-r", "memory", "1M"});
    WritingClient client(server.socket());
    CHECK(client.read(0, 512) == bytes(512, 0));
    CHECK_THROWS(client.trim(0, 65536));
    CHECK(server.requests().empty());
  }
  FilteredServer server(kName, {"pattern", "1M"});
  WritingClient client(server.socket());
  CHECK(client.read(8, 8)[7] == std::byte{8});
  CHECK_THROWS(client.trim(0, 65536));
}

TEST_CASE("invalid parameters of the filter are refused", "[coalesce-discard]") {
  for (const std::string parameter :
       {"coalesce-discard-granularity=3000", "coalesce-discard-granularity=0",
        "coalesce-discard-granularity=64M", "coalesce-discard-limit=-1",
        "coalesce-discard-limit=10000000", "zero-fragments=perhaps"}) {
    CAPTURE(parameter);
    const auto outcome = test::try_filter(kName, {"null", "1M", parameter});
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("error: "));
  }
}

TEST_CASE("statistics of trims are logged at the end on request", "[coalesce-discard]") {
  if (support::nbdkit_command().size() > 1) {
    WARN("skipped: nbdkit does not end by itself with this sanitizer");
    return;
  }
  const auto outcome = support::run(
      {"nbdkit", "-f", "-v", "-U", "-", "-D", "coalesce-discard.stats=1",
       "--filter=" + test::filter(kName), "memory", "1M", "coalesce-discard-granularity=64k",
       "--run", std::string(kQemuIo) + "-c 'discard 0 60k' -c 'discard 60k 8k'"});
  CHECK_THAT(outcome.err, Contains("2 trims of 69632 bytes became 1 of whole granules, of 65536 "
                                   "bytes, 61440 of them joined"));
}

namespace {

// A client that trims and writes random parts of its own stripes (one in kClients), and reads them.
// Throws if a written byte is lost.
constexpr unsigned kClients = 4;
constexpr unsigned kRequests = 200;  // per client; with fewer, granules might stay incomplete
constexpr uint64_t kStripe = 3000;   // not a multiple of a block
constexpr uint64_t kDisk = 256 << 10;

void look_after_stripes(WritingClient& client, unsigned self, Random random) {
  std::vector<uint8_t> model(kDisk);  // 0: unknown
  for (unsigned i = 0; i < kRequests; ++i) {
    const uint64_t stripe = random.below(kDisk / kStripe / kClients) * kClients + self;
    const uint64_t at = stripe * kStripe;
    const auto choice = random.below(100);
    if (choice < 60) {
      client.trim(at, kStripe);
      std::fill_n(model.begin() + at, kStripe, 0);
    } else if (choice < 90) {
      const uint64_t offset = at + random.below(kStripe);
      const uint64_t length = 1 + random.below(at + kStripe - offset);
      const auto value = static_cast<uint8_t>(1 + random.below(255));
      client.write(offset, bytes(length, value));
      std::fill_n(model.begin() + offset, length, value);
    } else if (choice < 95) {
      client.flush();
    } else {
      const auto disk = client.read(0, kDisk);
      for (uint64_t n = 0; n < kDisk; ++n)
        if (model[n] != 0 && disk[n] != std::byte{model[n]})
          throw std::runtime_error("byte " + std::to_string(n) + " is lost");
    }
  }
}

// Half of the clients use the export `name`, the other half uses `other`.
void check_clients(FilteredServer& server, const std::string& name, const std::string& other) {
  const uint64_t seed = support::base_seed();
  std::vector<std::string> errors(kClients);
  std::vector<std::thread> threads;
  threads.reserve(kClients);
  for (unsigned t = 0; t < kClients; ++t)
    threads.emplace_back([&, t] {
      try {
        WritingClient client(server.socket(), t < kClients / 2 ? name : other);
        look_after_stripes(client, t, Random(seed + t));
      } catch (const std::exception& error) {
        errors[t] = error.what();
      }
    });
  for (auto& it : threads) it.join();
  for (const auto& it : errors) CHECK(it == "");
}

}  // namespace

TEST_CASE("concurrent clients lose no data", "[coalesce-discard]") {
  FilteredServer server(
      kName, {"--filter=delay", "memory", std::to_string(kDisk), "coalesce-discard-granularity=2k",
              "delay-trim=2ms", "delay-write=1ms", "coalesce-discard-limit=16"});
  check_clients(server, "", "other");
  const auto requests = server.requests();
  CHECK(std::any_of(requests.begin(), requests.end(), [](const std::string& it) {
    return it.starts_with("trim ") && it.ends_with("+2048");
  }));
}

TEST_CASE("no client of our plugin loses what it wrote", "[coalesce-discard][filters-plugin]") {
  const support::TempDirectory folder;
  const std::string image = folder / "disk.qcow2";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image,
                   std::to_string(kDisk)});
  {
    FilteredServer server(kName, {tool_test::plugin(), image, "zero-fragments=true"});
    check_clients(server, "", "");
  }
  support::run_ok({"qemu-img", "check", image});
}
