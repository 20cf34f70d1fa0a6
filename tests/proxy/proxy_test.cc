// The plugin checked-nbd, with servers that are honest, leave, fall silent or lie.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "nbd/block_status.h"
#include "nbd/endpoint.h"
#include "nbd/proxy_note.h"
#include "nbd/session.h"
#include "tests/catch_text.h"
#include "tests/support/lying_server.h"
#include "tests/support/many_cases.h"
#include "tests/support/nbd_server.h"

using namespace vc;

using nbd::NbdStatus;
using support::Lie;
using support::LyingServer;

namespace {

using Bytes = std::vector<std::byte>;

constexpr size_t kSize = 3 << 20;
constexpr size_t kPiece = 64 << 10;
constexpr const char* kContext = "base:allocation";

// Data, and a hole from 1 MiB to 2 MiB.
Bytes some_disk() {
  Bytes bytes(kSize);
  for (size_t i = 0; i < kSize; ++i)
    if (i < 1 << 20 || i >= 2 << 20) bytes[i] = std::byte(1 + i * 2654435761u % 255);
  return bytes;
}

const Bytes& disk() {
  static const Bytes bytes = some_disk();
  return bytes;
}

template <typename T>
T value(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return std::move(*result);
}

// nbdkit with the plugin, in front of a server; and a client.
class Proxy {
 public:
  explicit Proxy(const LyingServer& server) : note_(value(nbd::ProxyNote::make())) {
    const char* const plugin = std::getenv("VIRT_COMPACT_PROXY");
    if (!plugin) throw std::runtime_error("VIRT_COMPACT_PROXY is not set");
    auto command = support::nbdkit_command();
    command.insert(command.end(),
                   {plugin, "uri=" + server.uri(), "timeout=1", "note=" + note_.path()});
    endpoint_ = value(nbd::NbdEndpoint::open({"", command}, stop_));
    auto line = nbd::NbdSession::open(endpoint_, {kContext}, {.retries = 0, .timeout = {}}, stop_);
    if (line) line_ = std::move(*line);
  }

  bool connected() const { return line_ != nullptr; }
  nbd::NbdSession& line() { return *line_; }
  nbd::NbdConnection& connection() { return line_->connection(); }
  std::string note() const { return note_.text().value_or(""); }

  Result<Bytes> read(uint64_t at, size_t length) {
    Bytes bytes(length);
    RETURN_IF_ERROR(connection().read_now(bytes, at));
    return bytes;
  }

  std::vector<NbdStatus::Stretch> status() {
    NbdStatus status(kContext, 1);
    std::vector<NbdStatus::Stretch> all;
    for (uint64_t at = 0; at < kSize; at = all.back().at + all.back().length)
      if (!status.ask(line(), at, kSize - at, all)) return {};
    return all;
  }

  // Ends the proxy; how it ended if that was not by itself.
  std::string close() {
    line_.reset();
    const auto finished = endpoint_->server()->finish(std::chrono::seconds(60));
    return finished ? "" : finished.error().message();
  }

 private:
  const Cancel never_;
  const Stop stop_{never_};
  nbd::ProxyNote note_;
  std::shared_ptr<nbd::NbdEndpoint> endpoint_;
  std::unique_ptr<nbd::NbdSession> line_;
};

// What is wrong with what a client saw; empty: nothing.
std::string wrong_with(Proxy& proxy, Lie lie) {
  if (!proxy.connected()) return proxy.note().empty() ? "no word why it did not start" : "";
  bool failed = false;
  for (uint64_t at = 0; at < kSize; at += kPiece) {
    const auto bytes = proxy.read(at, kPiece);
    failed |= !bytes;
    const auto expected = disk().begin() + static_cast<std::ptrdiff_t>(at);
    if (bytes && !std::equal(bytes->begin(), bytes->end(), expected)) return "other bytes came";
  }
  (void)proxy.status();
  if (proxy.connection().lost()) return "the proxy has ended";
  if (support::spoils_reads(lie) && !failed) return "the server was believed";
  // An error that the server reports is no reason to give it up. If the text of the error claims to
  // be longer than its chunk, libnbd 1.22 (Debian 13) reports the error, and libnbd 1.14 (Debian
  // 12) ends the connection.
  const bool honest =
      lie == Lie::kErrorChunk || lie == Lie::kDataThenError || lie == Lie::kErrorOfHugeLength;
  if (failed && !honest && proxy.note().empty()) return "the server was not given up";
  if (const auto ended = proxy.close(); !ended.empty()) return ended;
  return {};
}

bool is_silent(Lie lie) {
  return std::string(to_string(lie)).starts_with("silent");
}

}  // namespace

TEST_CASE("a proxy passes all requests on") {
  LyingServer server({.structured = GENERATE(true, false)}, disk());
  Proxy proxy(server);
  REQUIRE(proxy.connected());
  const nbd::NbdLimits limits = proxy.line().limits();
  CHECK(limits.size == kSize);
  CHECK((limits.multi_conn && limits.can_flush && limits.can_trim && limits.can_zero));
  CHECK((limits.can_fua && !limits.can_fast_zero && !limits.read_only));

  Bytes expected = disk();
  const Bytes written(kPiece, std::byte{0xcd});
  std::array<nbd::NbdReply, 4> replies;
  nbd::NbdConnection& it = proxy.connection();
  REQUIRE(it.write(written, 4096, replies[0]));
  REQUIRE(it.zero(8192, 2 << 20, replies[1], {}));
  REQUIRE(it.trim(4096, 0, replies[2]));
  for (size_t i = 0; i < 3; ++i) REQUIRE(it.wait(replies[i], "change"));
  REQUIRE(it.flush_now());
  std::copy(written.begin(), written.end(), expected.begin() + 4096);
  std::fill_n(expected.begin() + (2 << 20), 8192, std::byte{0});
  CHECK(server.disk() == expected);

  // Many at a time.
  std::deque<nbd::NbdReply> reads;
  Bytes bytes(kSize);
  for (uint64_t at = 0; at < kSize; at += kPiece) {
    reads.emplace_back();
    REQUIRE(it.read(std::span(bytes).subspan(at, kPiece), at, reads.back()));
  }
  for (auto& reply : reads) REQUIRE(it.wait(reply, "read"));
  CHECK(bytes == expected);
  CHECK(proxy.note() == "");
  CHECK(proxy.close() == "");
}

TEST_CASE("a proxy says what its server says of the allocation") {
  const LyingServer server({}, disk());
  Proxy proxy(server);
  REQUIRE(proxy.connected());
  const auto stretches = proxy.status();
  REQUIRE(stretches.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(stretches[i].at == i << 20);
    CHECK(stretches[i].length == 1 << 20);
    CHECK(stretches[i].flags == (i == 1 ? nbd::kStatusHole | nbd::kStatusZero : 0));
  }
}

TEST_CASE("a proxy believes no wrong answer, and waits for no silent server") {
  const auto lies = support::all_lies();
  support::Complaints complaints;
  support::in_parallel(lies.size() * 2, [&](size_t at) {
    const Lie lie = lies[at / 2];
    const unsigned honest = at % 2 == 0 ? 0 : 3;
    try {
      const LyingServer server({.lie = lie, .honest = honest, .multi_conn = honest == 0}, disk());
      Proxy proxy(server);
      std::string wrong = wrong_with(proxy, lie);
      if (const auto note = proxy.note(); wrong.empty() && !note.empty()) {
        if (!note.starts_with(server.uri() + ": ")) wrong = "another server is named: " + note;
        if (is_silent(lie) && note.find("within 1 second (--timeout)") == std::string::npos)
          wrong = "another reason is told: " + note;
      }
      if (!wrong.empty()) complaints.add(fmt::format("{} ({}): {}", to_string(lie), honest, wrong));
    } catch (const std::exception& exception) {
      complaints.add(fmt::format("{} ({}): {}", to_string(lie), honest, exception.what()));
    }
  });
  CHECK(complaints.text() == "");
}

TEST_CASE("a proxy gives the errors of its server, and goes on") {
  const LyingServer server({.lie = Lie::kErrorChunk, .most_lies = 1}, disk());
  Proxy proxy(server);
  REQUIRE(proxy.connected());
  const auto failed = proxy.read(0, kPiece);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().errnum() == EIO);
  CHECK(proxy.read(0, kPiece).has_value());
  CHECK(proxy.note() == "");
}
