// An NBD server that runs during a copy.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/stop.h"
#include "storage/descriptor.h"

namespace vc::nbd {

// The server gets a listening Unix socket by systemd's socket activation (descriptor 3, LISTEN_FDS,
// LISTEN_PID), so any number of connections is possible. The socket's name is removed before the
// server runs: other processes cannot connect, and no file is left behind however this process
// ends.
//
// The server has a process group of its own: Ctrl-C reaches only this process, which then ends the
// server. Its standard input is empty, and its standard output is this process's standard error.
class ServerProcess {
 public:
  // Starts `command` (at least one word). Returns an error if it cannot be executed. Whether it
  // serves NBD is known only on connection. The calling thread must live as long as the server is
  // needed: the kernel ends the server with the thread.
  //
  // `stop` must outlive the process. Once it is requested, the destructor waits for a shorter time.
  static Result<std::unique_ptr<ServerProcess>> start(const std::vector<std::string>& command,
                                                      const Stop& stop);

  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  // Sends SIGTERM, waits some seconds, and sends SIGKILL, to the whole process group, so that
  // children of the server end, too.
  ~ServerProcess();

  // Sets the time between the destructor's signals. A server without data to write needs less than
  // the default.
  void set_patience(std::chrono::seconds patience) { patience_ = patience; }

  // Returns the URI, which is valid only in this process.
  const std::string& uri() const { return uri_; }
  // Returns the socket's path for child processes of the same user.
  std::string socket_path() const;
  pid_t pid() const { return pid_; }

  // Returns how the server ended ("exit status 1", "killed by signal 9"); nullopt if it runs.
  // Thread-safe.
  std::optional<std::string> ended();
  // Like ended(), but waits briefly: for a server that has just closed a connection and may be
  // about to end.
  std::optional<std::string> ending();

  // Asks the server to end, and waits for up to `patience`, for a server with much data to write.
  // Returns an error if it does not end by itself, or ends with a failure.
  Result<void> finish(std::chrono::seconds patience);

 private:
  ServerProcess(pid_t pid, Descriptor socket, std::string uri, const Stop& stop)
      : pid_(pid), socket_(std::move(socket)), uri_(std::move(uri)), stop_(stop) {}

  // Time for a server to end: a writing server has caches to flush.
  static constexpr std::chrono::seconds kPatience{30};

  const pid_t pid_;
  const Descriptor socket_;  // the nameless socket, for connecting only
  const std::string uri_;
  const Stop& stop_;
  std::chrono::seconds patience_ = kPatience;
};

}  // namespace vc::nbd
