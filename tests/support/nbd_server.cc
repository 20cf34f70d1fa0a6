#include "tests/support/nbd_server.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "tests/support/raw_file.h"

namespace vc::support {

namespace {

// Returns a socket that is connected to `path`, or a negative number if no process listens there.
int connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    throw std::runtime_error(path + ": too long for a socket");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::runtime_error("socket");
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

bool can_connect(const std::string& path) {
  const int fd = connect_to(path);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
}

std::string percent_encode(const std::string& text) {
  std::string encoded;
  for (const unsigned char c : text)
    encoded +=
        std::isalnum(c) != 0 ? std::string(1, static_cast<char>(c)) : fmt::format("%{:02X}", c);
  return encoded;
}

// Returns the sanitizer's library of this test program; empty: none. A server must load it before
// it loads a plugin that was built with it.
std::string sanitizer_library() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t path = line.find('/');
    if (path == std::string::npos) continue;
    for (const char* name : {"libasan.so", "libtsan.so", "libclang_rt.asan", "libclang_rt.tsan"})
      if (line.find(name, path) != std::string::npos) return line.substr(path);
  }
  return {};
}

}  // namespace

std::vector<std::string> nbdkit_command() {
  const std::string library = sanitizer_library();
  if (library.empty()) return {"nbdkit"};
  const char* const options = std::getenv("ASAN_OPTIONS");
  // Ignores leaks of nbdkit itself.
  return {"env", "LD_PRELOAD=" + library,
          fmt::format("ASAN_OPTIONS={}:detect_leaks=0", options ? options : ""), "nbdkit"};
}

void wait_for_greeting(const std::string& socket) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < deadline) {
    if (const int fd = connect_to(socket); fd >= 0) {
      const timeval patience{60, 0};
      ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
      char first = 0;
      const ssize_t got = ::recv(fd, &first, 1, 0);
      ::close(fd);
      if (got == 1) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  throw std::runtime_error(socket + ": nobody greets");
}

NbdServer::NbdServer(Kind kind, const std::vector<std::string>& arguments)
    : folder_(std::make_unique<TempDirectory>()), socket_(*folder_ / "socket") {
  std::vector<std::string> command;
  if (kind == Kind::kNbdkit) {
    // Only for our plugins: with ThreadSanitizer's library, nbdkit does not end by itself, and
    // programs that its sh plugin runs crash.
    const bool ours = std::any_of(arguments.begin(), arguments.end(),
                                  [](const std::string& word) { return word.ends_with(".so"); });
    command = ours ? nbdkit_command() : std::vector<std::string>{"nbdkit"};
    command.insert(command.end(), {"--foreground", "--exit-with-parent", "--unix", socket_});
  } else {
    // Serves any number of clients.
    command = {"qemu-nbd", "--read-only", "--persistent", "--shared=0", "--socket=" + socket_};
  }
  command.insert(command.end(), arguments.begin(), arguments.end());
  child_ = std::make_unique<Child>(command, *folder_ / "log");

  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!can_connect(socket_)) {
    if (!child_->running() || std::chrono::steady_clock::now() > deadline)
      throw std::runtime_error(
          fmt::format("{}: the server did not come up: {}", shell_line(command), log()));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

std::string NbdServer::uri(const std::string& export_name) const {
  return fmt::format("nbd+unix:///{}?socket={}", percent_encode(export_name), socket_);
}

std::string NbdServer::log() const {
  const auto bytes = read_file(*folder_ / "log");
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace vc::support
