// An NBD server that lives as long as the copy.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/stop.h"

namespace copy {

// The server is given a listening Unix socket as systemd would give it (descriptor 3, LISTEN_FDS,
// LISTEN_PID), so any number of connections can be made to it.  The socket has no name any more by
// the time the server runs: nobody else can connect, and however we end no file is left behind.
//
// The server is in a process group of its own, so that Ctrl-C reaches us only and it is we who end
// it.  Its standard input is empty, and its standard output is our standard error.
class ServerProcess {
 public:
  // Starts `command` (at least one word).  An error if it cannot be executed; whether it serves is
  // known when it is connected to.  To be called by a thread that lives as long as the server is
  // needed: the kernel ends the server with it.
  // `stop` outlives the process; when it is requested, the end is less patient.
  static qcow2::Result<std::unique_ptr<ServerProcess>> start(
      const std::vector<std::string>& command, const Stop& stop);

  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  // SIGTERM, some seconds of patience, SIGKILL; for the whole group, so that nothing is left of a
  // command that started others.
  ~ServerProcess();

  // Good in this process only.
  const std::string& uri() const { return uri_; }
  // The path of the socket for processes that we start and that are the same user's.
  std::string socket_path() const;
  pid_t pid() const { return pid_; }

  // How the server ended ("exit status 1", "killed by signal 9"), if it has.  Thread-safe.
  std::optional<std::string> ended();
  // The same for one that has just closed a connection, and may be about to end.
  std::optional<std::string> ending();

  // Asks it to end, and gives it that long: for a server that has much to put in order.  An error
  // if it does not end by itself, or not well.
  qcow2::Result<void> finish(std::chrono::seconds patience);

 private:
  ServerProcess(pid_t pid, int socket, std::string uri, const Stop& stop)
      : pid_(pid), socket_(socket), uri_(std::move(uri)), stop_(stop) {}

  const pid_t pid_;
  const int socket_;  // the nameless socket, for connecting only
  const std::string uri_;
  const Stop& stop_;
};

}  // namespace copy
