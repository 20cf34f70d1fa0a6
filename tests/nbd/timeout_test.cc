// Servers that fall silent: while a client connects, in the handshake, and before a reply.

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/cancel.h"
#include "base/stop.h"
#include "nbd/connection.h"
#include "nbd/tuning.h"
#include "tests/catch_text.h"
#include "tests/support/lying_server.h"

using namespace vc;

using Catch::Contains;
using nbd::NbdConnection;
using support::Lie;

namespace {

constexpr std::chrono::seconds kTimeout{1};

// A TCP port whose queue of connections is full: an attempt to connect gets no answer.
class FullPort {
 public:
  FullPort() : listening_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address_;
    REQUIRE(::bind(listening_, generic(), length) == 0);
    REQUIRE(::listen(listening_, 0) == 0);
    REQUIRE(::getsockname(listening_, generic(), &length) == 0);
    // The kernel completes as many as fit into the queue.
    for (int& it : waiting_) {
      it = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      REQUIRE((::connect(it, generic(), length) == 0 || errno == EINPROGRESS));
    }
  }
  FullPort(const FullPort&) = delete;
  FullPort& operator=(const FullPort&) = delete;
  ~FullPort() {
    for (const int it : waiting_) ::close(it);
    ::close(listening_);
  }

  std::string uri() const { return "nbd://127.0.0.1:" + std::to_string(ntohs(address_.sin_port)); }

 private:
  sockaddr* generic() { return reinterpret_cast<sockaddr*>(&address_); }

  sockaddr_in address_{};
  int listening_;
  int waiting_[4];
};

// Connects and reads a byte, as a client does that waits for kTimeout.
Result<void> use(const std::string& uri) {
  const Cancel cancel;
  const Stop stop(cancel);
  nbd::NbdTarget target;
  target.uri = uri;
  ASSIGN_OR_RETURN(const auto endpoint, nbd::NbdEndpoint::open(target, stop));
  ASSIGN_OR_RETURN(const auto connection, NbdConnection::open(*endpoint, {}, kTimeout, stop));
  std::byte byte{};
  return connection->read_now(std::span(&byte, 1), 0);
}

}  // namespace

TEST_CASE("a server that accepts no connection is not waited for", "[timeout]") {
  const FullPort port;
  const auto used = use(port.uri());
  REQUIRE_FALSE(used);
  CHECK(used.error().errnum() == ETIMEDOUT);
  CHECK_THAT(used.error().message(),
             Contains(port.uri() + ": the server has not completed the handshake within 1 second"));
}

TEST_CASE("a server that is silent in the handshake is not waited for", "[timeout]") {
  const Lie lie = GENERATE(Lie::kSilentAtOnce, Lie::kSilentInOptions, Lie::kSilentAtGo);
  INFO(support::to_string(lie));
  const support::LyingServer server({.lie = lie}, std::vector<std::byte>(1 << 20));
  const auto used = use(server.uri());
  REQUIRE_FALSE(used);
  CHECK(used.error().errnum() == ETIMEDOUT);
  CHECK_THAT(used.error().message(), Contains("has not completed the handshake within 1 second"));
}

TEST_CASE("a server that does not reply is not waited for", "[timeout]") {
  const Lie lie = GENERATE(Lie::kSilentAtCommand, Lie::kSilentInHeader, Lie::kSilentInPayload);
  INFO(support::to_string(lie));
  const support::LyingServer server({.lie = lie}, std::vector<std::byte>(1 << 20));
  const auto used = use(server.uri());
  REQUIRE_FALSE(used);
  CHECK(used.error().errnum() == ETIMEDOUT);
  CHECK_THAT(used.error().message(), Contains("the server has not answered within 1 second"));
}

TEST_CASE("a server has a minute unless --timeout says otherwise", "[timeout]") {
  CHECK(nbd::NbdTuning().timeout == std::chrono::seconds(60));
}
