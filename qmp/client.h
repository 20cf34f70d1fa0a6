// A connection to the monitor of a QEMU: JSON lines over a Unix socket (QMP).
//
// The other end is not trusted to be a QEMU: each wait has a time limit, each line a longest
// length.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/result.h"
#include "storage/descriptor.h"

namespace vc::qmp {

struct Limits {
  std::chrono::milliseconds greeting{10'000};
  // QEMU answers some commands only when all requests of the guest are done.
  std::chrono::milliseconds answer{120'000};
  size_t line = 4 << 20;  // bytes
};

// Not thread-safe. Errors name the socket.
class Client {
 public:
  // Connects to the socket at `path`, and waits until QEMU accepts commands. Returns nullptr if no
  // process listens there.
  static Result<std::unique_ptr<Client>> connect(const std::string& path, Limits limits = {});
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Executes a command, and returns its value. Returns an error if QEMU returns one. After a wrong
  // answer, or none within the time limit, all further commands fail.
  Result<nlohmann::json> execute(const std::string& command,
                                 nlohmann::json arguments = nlohmann::json::object());

  const std::string& name() const { return name_; }  // "QEMU of /run/web.qmp"
  pid_t process() const { return process_; }         // that listens; 0: not known

 private:
  using Deadline = std::chrono::steady_clock::time_point;
  Client(Descriptor socket, std::string name, Limits limits)
      : socket_(std::move(socket)), name_(std::move(name)), limits_(limits) {}
  Result<void> greet();
  Result<void> send(const std::string& line, Deadline deadline);
  // Returns the next line, an object.
  Result<nlohmann::json> receive(Deadline deadline);
  Result<nlohmann::json> answer_to(const std::string& command, uint64_t id);
  Result<void> wait_for(short events, Deadline deadline);

  Descriptor socket_;
  const std::string name_;
  const Limits limits_;
  pid_t process_ = 0;
  std::string received_;  // not yet parsed
  uint64_t last_id_ = 0;
  bool broken_ = false;
};

}  // namespace vc::qmp
