// Runs other programs in bounded time, and returns their output and exit status.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace vc::support {

struct Outcome {
  int exit_code = -1;  // -1: ended by a signal
  int signal = 0;      // signal that ended it; 0: none
  bool timed_out = false;
  std::string out;
  std::string err;
  uint64_t peak_memory = 0;  // maximum of resident memory, bytes
  std::chrono::duration<double> elapsed{};

  bool ok() const { return exit_code == 0; }
  // Returns all of the above, for the message of a failed assertion.
  std::string describe() const;
};

struct RunOptions {
  std::chrono::milliseconds timeout = std::chrono::seconds(120);
  std::string input;                     // sent to its standard input, which is then closed
  std::string directory;                 // working directory; empty: that of the test
  std::vector<std::string> environment;  // "NAME=VALUE", in addition to the test's own
  uint64_t address_space_limit = 0;      // bytes; 0: none
};

// Runs `command`, whose first word is looked up in PATH, until it ends. Kills it with its process
// group at the timeout. Throws std::runtime_error if it cannot be started, so that a missing tool
// is a failure.
Outcome run(const std::vector<std::string>& command, const RunOptions& options = {});

// Same for a program that must succeed. Throws std::runtime_error with its output.
Outcome run_ok(const std::vector<std::string>& command, const RunOptions& options = {});

// Returns the words of a command for a message, quoted for a shell.
std::string shell_line(const std::vector<std::string>& command);

// A program that runs until the object is destroyed. It then gets SIGTERM, and SIGKILL if
// necessary.
class Child {
 public:
  // Both outputs go to the file `log`.
  Child(const std::vector<std::string>& command, const std::string& log);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }
  // Returns true if it is still running.
  bool running();
  // Sends SIGKILL, and waits.
  void kill();

 private:
  pid_t pid_;
  bool reaped_ = false;
};

}  // namespace vc::support
