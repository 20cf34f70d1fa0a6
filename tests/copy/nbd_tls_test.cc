// Copies from and to servers with TLS.

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <thread>

#include "copy/sink/nbd_sink.h"
#include "copy/source/nbd_source.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/copy/memory_sink.h"
#include "tests/copy/restartable_server.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::NbdSink;
using copy::NbdSource;
using nbd::NbdTarget;
using support::run_ok;
using support::TempDirectory;

namespace {

constexpr size_t kDiskSize = 4 << 20;

// Copies `from` to `to`, both servers.
Result<void> copy_over(const std::string& from, const std::string& to) {
  const Cancel cancel;
  Stop stop(cancel);
  ASSIGN_OR_RETURN(const auto source, NbdSource::open(from, {}, stop));
  ASSIGN_OR_RETURN(const auto sink, NbdSink::open(NbdTarget{to, {}}, {}, source->size(), stop));
  test::Watcher watcher;
  return test::run_into(*source, *sink, watcher, stop);
}

sockaddr_in local_address(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// Runs nbdkit on 127.0.0.1, with certificates. A client compares names only if the server has one,
// and a Unix socket has none.
class TcpServer {
 public:
  TcpServer(const std::string& certificates, const std::string& file, const std::string& log) {
    // Finds a free port, which is most likely still free a moment later.
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = local_address(0);
    socklen_t length = sizeof address;
    REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    ::close(fd);
    port_ = ntohs(address.sin_port);
    child_ = std::make_unique<support::Child>(
        std::vector<std::string>{"nbdkit", "-f", "--exit-with-parent", "-i", "127.0.0.1", "-p",
                                 std::to_string(port_), "--tls=require",
                                 "--tls-certificates=" + certificates, "file", file},
        log);
    for (int tries = 0; !listens() && tries < 5000; ++tries) {
      REQUIRE(child_->running());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  int port() const { return port_; }

 private:
  bool listens() const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = local_address(port_);
    const bool connected =
        ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    return connected;
  }

  int port_ = 0;
  std::unique_ptr<support::Child> child_;
};

}  // namespace

TEST_CASE("pre-shared keys", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 1, kDiskSize);
  const std::string key(64, 'a');
  support::write_file(folder / "keys", "alice:" + key + "\n");
  support::write_file(folder / "wrong", "alice:" + std::string(64, 'b') + "\n");
  support::write_file(folder / "to", std::vector<std::byte>(kDiskSize, std::byte{9}));
  const auto serve = [&](const std::string& file) {
    return std::vector<std::string>{"nbdkit",
                                    "-f",
                                    "--exit-with-parent",
                                    "--unix",
                                    "SOCKET",
                                    "--tls=require",
                                    "--tls-psk=" + (folder / "keys"),
                                    "file",
                                    file};
  };
  test::RestartableServer source(serve(folder / "raw"));
  test::RestartableServer destination(serve(folder / "to"));
  const auto uri = [&](const test::RestartableServer& server, const std::string& keys) {
    return "nbds+unix://alice@/?socket=" + server.socket() + "&tls-psk-file=" + (folder / keys);
  };
  REQUIRE_OK(copy_over(uri(source, "keys"), uri(destination, "keys")));
  CHECK(support::read_file(folder / "to") == support::read_file(folder / "raw"));

  const auto wrong = copy_over(uri(source, "wrong"), uri(destination, "keys"));
  REQUIRE_FALSE(wrong.has_value());
  INFO(wrong.error().message());
  CHECK(wrong.error().message().find(uri(source, "wrong")) == 0);
  // The server refuses unencrypted connections.
  REQUIRE_FAILS_WITH(copy_over(source.uri(), uri(destination, "keys")), source.uri());
}

TEST_CASE("certificates", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 2, kDiskSize);
  support::write_file(folder / "to", std::vector<std::byte>(kDiskSize, std::byte{9}));
  // Makes an authority, a server named localhost, and a second authority that has signed nothing.
  const auto openssl = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "openssl");
    support::RunOptions options;
    options.directory = folder.path();
    run_ok(arguments, options);
  };
  for (const char* name : {"ca", "other"})
    openssl({"req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             std::string("/CN=") + name, "-keyout", std::string(name) + "-key.pem", "-out",
             std::string(name) + "-cert.pem"});
  openssl({"req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout",
           "server-key.pem", "-out", "server.csr"});
  support::write_file(folder / "ext", std::string("subjectAltName=DNS:localhost\n"));
  openssl({"x509", "-req", "-in", "server.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
           "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", "server-cert.pem"});
  run_ok({"mkdir", folder / "client", folder / "stranger"});
  run_ok({"cp", folder / "ca-cert.pem", folder / "client/ca-cert.pem"});
  run_ok({"cp", folder / "other-cert.pem", folder / "stranger/ca-cert.pem"});
  const TcpServer source(folder.path(), folder / "raw", folder / "log1");
  const TcpServer destination(folder.path(), folder / "to", folder / "log2");
  const auto uri = [&](const TcpServer& server, const std::string& client) {
    return fmt::format("nbds://localhost:{}/?tls-certificates={}", server.port(), folder / client);
  };
  REQUIRE_OK(copy_over(uri(source, "client"), uri(destination, "client")));
  CHECK(support::read_file(folder / "to") == support::read_file(folder / "raw"));
  REQUIRE_FAILS_WITH(copy_over(uri(source, "stranger"), uri(destination, "client")),
                     uri(source, "stranger"));
  // A name that is not in the certificate.
  const auto other_name =
      fmt::format("nbds://127.0.0.1:{}/?tls-certificates={}", source.port(), folder / "client");
  REQUIRE_FAILS_WITH(copy_over(other_name, uri(destination, "client")), other_name);
}
