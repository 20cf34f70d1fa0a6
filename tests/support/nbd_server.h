// An NBD server that runs while the object lives.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::support {

// Returns the command for nbdkit, to be followed by its arguments. If the plugin was built with a
// sanitizer, like this program, the command loads the sanitizer's library.
std::vector<std::string> nbdkit_command();

// Waits until the server behind a Unix socket answers a connection. Then it has opened its disk,
// which is not certain when the socket appears. Throws std::runtime_error after a minute.
void wait_for_greeting(const std::string& socket);

// Listens on a Unix socket in a temporary folder.
class NbdServer {
 public:
  // Starts `nbdkit <arguments>`: the plugin and its parameters. Throws std::runtime_error with the
  // server's output if it does not start.
  static NbdServer nbdkit(const std::vector<std::string>& arguments) {
    return NbdServer(Kind::kNbdkit, arguments);
  }
  // Starts `qemu-nbd -r <arguments>`, read-only.
  static NbdServer qemu_nbd(const std::vector<std::string>& arguments) {
    return NbdServer(Kind::kQemuNbd, arguments);
  }

  const std::string& socket() const { return socket_; }
  std::string uri(const std::string& export_name = "") const;
  // Returns its output so far.
  std::string log() const;
  Child& process() { return *child_; }

 private:
  enum class Kind { kNbdkit, kQemuNbd };
  NbdServer(Kind kind, const std::vector<std::string>& arguments);

  std::unique_ptr<TempDirectory> folder_;
  std::string socket_;
  std::unique_ptr<Child> child_;  // declared after folder_, so that it is destroyed first
};

}  // namespace vc::support
