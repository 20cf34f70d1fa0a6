// A server that can be killed and started again at the same address.
#pragma once

#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::test {

class RestartableServer {
 public:
  // Runs `command`, in which SOCKET stands for the Unix socket to listen on.
  explicit RestartableServer(std::vector<std::string> command);
  RestartableServer(const RestartableServer&) = delete;
  RestartableServer& operator=(const RestartableServer&) = delete;
  ~RestartableServer();

  std::string uri() const { return "nbd+unix:///?socket=" + socket_; }
  const std::string& socket() const { return socket_; }
  // SIGKILL.
  void kill() { child_->kill(); }
  // Returns when the server listens.  Throws std::runtime_error with the server's output if it does
  // not.
  void start();
  // Same, with another command.
  void start(std::vector<std::string> command);

 private:
  void launch();
  void serve();
  void finish();

  support::TempDirectory folder_;
  std::string socket_;
  std::vector<std::string> command_;
  std::unique_ptr<support::Child> child_;

  // A child ends with the thread that started it. So one thread starts all children and keeps
  // running.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::packaged_task<void()> job_;  // guarded by mutex_
  bool finished_ = false;           // guarded by mutex_
  std::thread launcher_;
};

}  // namespace vc::test
