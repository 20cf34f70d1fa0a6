#include "tests/copy/restartable_server.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>

#include "tests/support/raw_file.h"

namespace vc::test {

namespace {

bool can_connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(),
              std::min(path.size() + 1, sizeof address.sun_path - 1));
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool connected =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return connected;
}

}  // namespace

RestartableServer::RestartableServer(std::vector<std::string> command)
    : socket_(folder_ / "socket"), launcher_([this] { serve(); }) {
  try {
    start(std::move(command));
  } catch (...) {
    finish();
    throw;
  }
}

RestartableServer::~RestartableServer() {
  finish();
}

void RestartableServer::finish() {
  {
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }
  changed_.notify_one();
  launcher_.join();
}

void RestartableServer::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return finished_ || job_.valid(); });
    if (finished_) break;
    std::exchange(job_, {})();
  }
  child_.reset();
}

void RestartableServer::start() {
  std::future<void> done;
  {
    const std::lock_guard lock(mutex_);
    job_ = std::packaged_task<void()>([this] { launch(); });
    done = job_.get_future();
  }
  changed_.notify_one();
  done.get();
}

void RestartableServer::start(std::vector<std::string> command) {
  command_ = std::move(command);
  for (std::string& word : command_)
    if (const size_t at = word.find("SOCKET"); at != std::string::npos)
      word.replace(at, 6, socket_);
  start();
}

void RestartableServer::launch() {
  child_.reset();
  ::unlink(socket_.c_str());
  child_ = std::make_unique<support::Child>(command_, folder_ / "log");
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!can_connect(socket_)) {
    if (!child_->running() || std::chrono::steady_clock::now() > deadline) {
      const auto log = support::read_file(folder_ / "log");
      throw std::runtime_error(
          fmt::format("{}: the server did not come up: {}", support::shell_line(command_),
                      std::string(reinterpret_cast<const char*>(log.data()), log.size())));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace vc::test
