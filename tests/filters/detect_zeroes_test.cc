// Runs the filter in a real server, and checks the requests below it.
#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/catch.h"
#include "tests/filters/filtered_server.h"
#include "tests/filters/writing_client.h"
#include "tests/support/process.h"
#include "tests/support/random.h"

using namespace vc;

using Catch::Contains;
using support::Random;
using test::FilteredServer;
using test::WritingClient;
using Requests = std::vector<std::string>;

namespace {

constexpr char kName[] = "detect-zeroes";
// nbdkit's memory plugin prefers larger blocks from 1.40 on.
constexpr char k4[] = "detect-zeroes-granularity=4k";

// Returns bytes for letters: "aa00b" with a block of 4096 is 8192 bytes of 'a', 8192 zeros, 4096 of
// 'b'.
std::vector<std::byte> blocks(const std::string& letters, size_t block = 4096) {
  std::vector<std::byte> bytes;
  for (const char it : letters)
    bytes.insert(bytes.end(), block, it == '0' ? std::byte{0} : static_cast<std::byte>(it));
  return bytes;
}

}  // namespace

TEST_CASE("zeros inside a write become zero requests", "[detect-zeroes]") {
  FilteredServer server(kName, {"memory", "1M", k4});
  WritingClient client(server.socket());
  client.write(0, blocks("a00b"));
  CHECK(server.requests() == Requests{"write 0+4096", "zero 4096+8192 trim", "write 12288+4096"});
  client.write(65536, blocks("aaaa"));
  CHECK(server.requests() == Requests{"write 65536+16384"});
  client.write(65536, blocks("0000"));
  CHECK(server.requests() == Requests{"zero 65536+16384 trim"});
  client.write(100, blocks("0", 10));
  CHECK(server.requests() == Requests{"zero 100+10 trim"});
  CHECK(client.read(0, 16384) == [] {
    auto expected = blocks("a00b");
    std::fill_n(expected.begin() + 100, 10, std::byte{0});
    return expected;
  }());
}

TEST_CASE("zero requests may free space with unmap, and keep it allocated with on",
          "[detect-zeroes]") {
  for (const auto& [mode, expected] :
       {std::pair{"on", Requests{"write 0+4096", "zero 4096+4096"}},
        std::pair{"unmap", Requests{"write 0+4096", "zero 4096+4096 trim"}},
        std::pair{"off", Requests{"write 0+8192"}}}) {
    CAPTURE(mode);
    FilteredServer server(kName, {"memory", "1M", k4, std::string("detect-zeroes=") + mode});
    WritingClient client(server.socket());
    client.write(0, blocks("a0"));
    CHECK(server.requests() == expected);
  }
}

TEST_CASE("the granularity is that of the layer below, or the given one", "[detect-zeroes]") {
  const auto requests = [](const Requests& more) {
    Requests words{"--filter=blocksize-policy", "memory", "1M"};
    words.insert(words.end(), more.begin(), more.end());
    FilteredServer server(kName, words);
    WritingClient client(server.socket());
    client.write(0, blocks("a00a000000000000aaaa"));
    return server.requests();
  };
  CHECK(requests({"blocksize-preferred=16384"}) ==
        Requests{"write 0+16384", "zero 16384+49152 trim", "write 65536+16384"});
  // No granule contains only zeros.
  CHECK(requests({"blocksize-preferred=65536"}) == Requests{"write 0+81920"});
  CHECK(requests({"blocksize-preferred=65536", "detect-zeroes-granularity=32k"}) ==
        Requests{"write 0+32768", "zero 32768+32768 trim", "write 65536+16384"});
  // Requests are not smaller than the layer's minimum.
  CHECK(requests({"blocksize-preferred=65536", "blocksize-minimum=16384",
                  "detect-zeroes-granularity=512"}) ==
        Requests{"write 0+16384", "zero 16384+49152 trim", "write 65536+16384"});
}

TEST_CASE("FUA applies to all parts of a write", "[detect-zeroes]") {
  const auto requests = [](const std::string& mode) {
    FilteredServer server(kName, {"--filter=fua", "memory", "1M", k4, "fuamode=" + mode});
    WritingClient client(server.socket());
    client.write(0, blocks("a0b"), LIBNBD_CMD_FLAG_FUA);
    client.write(0, blocks("ab"), LIBNBD_CMD_FLAG_FUA);
    client.write(0, blocks("00"), LIBNBD_CMD_FLAG_FUA);
    return server.requests();
  };
  CHECK(requests("native") == Requests{"write 0+4096 fua", "zero 4096+4096 trim fua",
                                       "write 8192+4096 fua", "write 0+8192 fua",
                                       "zero 0+8192 trim fua"});
  // One flush instead of three.
  CHECK(requests("emulate") == Requests{"write 0+4096", "zero 4096+4096 trim", "write 8192+4096",
                                        "flush", "write 0+8192 fua", "zero 0+8192 trim fua"});
}

TEST_CASE("a layer that writes zeros as data gets data", "[detect-zeroes]") {
  for (const std::string mode : {"none", "emulate"}) {
    CAPTURE(mode);
    FilteredServer server(kName, {"--filter=nozero", "memory", "1M", k4, "zeromode=" + mode});
    WritingClient client(server.socket());
    client.write(0, blocks("a0b0"));
    client.write(0, blocks("0000"));
    CHECK(server.requests() == Requests{"write 0+16384", "write 0+16384"});
  }
}

TEST_CASE("an error of a zero request fails the write", "[detect-zeroes]") {
  FilteredServer server(
      kName, {"--filter=error", "memory", "1M", k4, "error-zero=ENOSPC", "error-zero-rate=100%"});
  WritingClient client(server.socket());
  CHECK_THROWS_WITH(client.write(0, blocks("a0b")), Contains("No space left"));
  CHECK(server.requests() == Requests{"write 0+4096", "zero 4096+4096 trim"});
  client.write(0, blocks("abc"));
}

TEST_CASE("other requests are passed on unchanged", "[detect-zeroes]") {
  FilteredServer server(kName, {"memory", "1M"});
  WritingClient client(server.socket());
  client.zero(10, 5000, LIBNBD_CMD_FLAG_NO_HOLE);
  client.zero(10, 5000);
  client.trim(1, 2);
  client.flush();
  CHECK(server.requests() == Requests{"zero 10+5000", "zero 10+5000 trim", "trim 1+2", "flush"});
}

TEST_CASE("a read-only disk stays read-only", "[detect-zeroes]") {
  FilteredServer server(kName, {"-r", "memory", "1M"});
  WritingClient client(server.socket());
  CHECK(client.read(0, 4096) == blocks("0"));
  CHECK_THROWS(client.write(0, blocks("a0")));
  CHECK(server.requests().empty());
}

TEST_CASE("invalid parameters are refused", "[detect-zeroes]") {
  for (const std::string parameter :
       {"detect-zeroes=maybe", "detect-zeroes-granularity=3000", "detect-zeroes-granularity=256",
        "detect-zeroes-granularity=64M", "detect-zeroes-granularity=much"}) {
    CAPTURE(parameter);
    const auto outcome = test::try_filter(kName, {"null", "1M", parameter});
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Contains("error: "));
  }
}

TEST_CASE("statistics are logged at the end on request", "[detect-zeroes]") {
  if (support::nbdkit_command().size() > 1) {
    WARN("skipped: nbdkit does not end by itself with this sanitizer");
    return;
  }
  const std::string client =
      "qemu-io -f raw -c 'write -P 0 0 64k' -c 'write 64k 64k' nbd+unix:///?socket=$unixsocket";
  const auto outcome =
      support::run({"nbdkit", "-f", "-v", "-U", "-", "-D", "detect-zeroes.stats=1",
                    "--filter=" + test::filter(kName), "memory", "1M", "--run", client});
  CHECK_THAT(outcome.err,
             Contains("2 writes of 131072 bytes became 1 writes and 1 zero requests of "
                      "65536 bytes"));
}

TEST_CASE("a disk is the same with the filter and without it", "[detect-zeroes]") {
  const uint64_t seed = support::base_seed();
  constexpr uint64_t kSize = 1 << 20;
  constexpr unsigned kClients = 4;
  FilteredServer with(kName, {"memory", std::to_string(kSize)});
  FilteredServer without("", {"memory", std::to_string(kSize)});
  std::vector<std::thread> threads;
  threads.reserve(kClients);
  std::vector<std::string> errors(kClients);
  for (unsigned t = 0; t < kClients; ++t)
    threads.emplace_back([&, t] {
      try {
        WritingClient one(with.socket());
        WritingClient two(without.socket());
        Random random(seed + t);
        const uint64_t count = support::iterations(150);
        for (uint64_t i = 0; i < count; ++i) {
          // Each client has its own part of the disk.
          const uint64_t part = kSize / kClients;
          const uint64_t offset = random.below(part);
          const uint64_t length = 1 + random.below(part - offset);
          const uint64_t at = t * part + offset;
          if (random.chance(10)) {
            one.zero(at, length);
            two.zero(at, length);
            continue;
          }
          std::vector<std::byte> bytes(length);
          for (size_t begin = 0; begin < length;) {
            const size_t run = std::min<size_t>(length - begin, 1 + random.below(20000));
            if (random.chance(50))
              std::memset(&bytes[begin], static_cast<int>(random.below(256)), run);
            begin += run;
          }
          one.write(at, bytes);
          two.write(at, bytes);
        }
      } catch (const std::exception& error) {
        errors[t] = error.what();
      }
    });
  for (auto& it : threads) it.join();
  for (const auto& it : errors) CHECK(it.empty());
  WritingClient one(with.socket());
  WritingClient two(without.socket());
  CHECK((one.read(0, kSize) == two.read(0, kSize)));
  // The filter had an effect.
  const auto requests = with.requests();
  CHECK(std::any_of(requests.begin(), requests.end(),
                    [](const std::string& it) { return it.ends_with(" trim"); }));
}
