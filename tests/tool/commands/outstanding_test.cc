// nbdkit 1.32 aborts when a client disconnects while answers are outstanding, so our clients wait
// for them.

#include <fmt/format.h>

#include <cstring>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::NbdServer;
using tool_test::run_script;
using tool_test::run_tool;

namespace {

constexpr size_t kSize = 32 << 20;
constexpr int kRounds = 6;

uint64_t number_at(const std::vector<std::byte>& bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value = value << 8 | uint64_t(bytes.at(at + i));
  return value;
}

void make_raw(const std::string& path) {
  std::vector<std::byte> bytes(kSize);
  for (size_t i = 0; i < kSize; ++i) bytes[i] = std::byte(i * 2654435761u >> 13);
  support::write_file(path, bytes);
}

// Makes a QCOW2 image of the same data. A cluster in its middle has an invalid offset.
void make_damaged(const std::string& raw, const std::string& path) {
  support::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path});
  auto bytes = support::read_file(path);
  const uint64_t l1 = number_at(bytes, 40);
  const uint64_t l2 = number_at(bytes, l1) & 0x00fffffffffffe00;
  bytes.at(l2 + 8 * (kSize / 2 >> 16) + 6) |= std::byte{2};
  support::write_file(path, bytes);
}

// Checks that the server has survived the client, and serves others.
void check_alive(NbdServer& server) {
  INFO(server.log());
  CHECK(run_tool({"info", "-q", server.uri()}).ok());
  CHECK(server.process().running());
  CHECK(server.log().find("ssertion") == std::string::npos);
}

}  // namespace

TEST_CASE("a server outlives a copy into it that fails", "[outstanding]") {
  const support::TempDirectory folder;
  make_raw(folder / "raw");
  make_damaged(folder / "raw", folder / "damaged.qcow2");
  auto server = NbdServer::nbdkit({"--filter=delay", "memory", "32M", "wdelay=20ms"});
  for (int i = 0; i < kRounds; ++i) {
    const auto outcome = run_tool({"copy", "-q", folder / "damaged.qcow2", server.uri()});
    INFO(outcome.describe());
    REQUIRE(outcome.exit_code > 0);
    check_alive(server);
  }
}

TEST_CASE("a server outlives clients that are interrupted", "[outstanding]") {
  const support::TempDirectory folder;
  make_raw(folder / "raw");
  auto server = NbdServer::nbdkit(
      {"--filter=delay", "file", folder / "raw", "wdelay=20ms", "rdelay=20ms", "delay-zero=20ms"});
  const std::string uri = server.uri();
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"copy", "-q", uri, "null:"},
           {"copy", "-q", "-f", "raw", folder / "raw", uri},
           {"punch", "-q", uri},
           {"compare", "-q", "-f", "raw", folder / "raw", uri},
           {"bench", "-q", "-c", "1000000", "--connections=4", "-d", "64", uri}}) {
    for (int i = 0; i < kRounds; ++i) {
      const auto outcome = run_script(
          fmt::format("\"$VIRT_COMPACT\" \"$@\" & pid=$!; sleep 0.{}; kill -TERM $pid; wait $pid",
                      i + 1),
          words);
      INFO(outcome.describe());
      CHECK_FALSE(outcome.timed_out);
      check_alive(server);
    }
  }
}
