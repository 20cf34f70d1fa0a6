// Runs other programs in bounded time, and returns their output and exit status.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace vc::support {

struct Outcome {
  int exit_code = -1;  // -1: it did not exit by itself
  int signal = 0;      // that ended it; 0: none
  bool timed_out = false;
  std::string out;
  std::string err;
  uint64_t peak_memory = 0;  // maximum of resident memory, bytes
  std::chrono::duration<double> elapsed{};

  bool ok() const { return exit_code == 0; }
  // All of the above, for the message of a failed assertion.
  std::string describe() const;
};

struct RunOptions {
  std::chrono::milliseconds timeout = std::chrono::seconds(120);
  std::string input;                     // for its standard input, which then ends
  std::string directory;                 // to run in; empty: ours
  std::vector<std::string> environment;  // "NAME=VALUE", on top of ours
  uint64_t address_space_limit = 0;      // bytes; 0: none
};

// Runs `command`, whose first word is looked up in PATH, until it ends.  A program that is still
// running at the timeout is killed, with its process group.  Throws std::runtime_error if it cannot
// be started, so that a missing tool is a failure.
Outcome run(const std::vector<std::string>& command, const RunOptions& options = {});

// The same for a program that must succeed.  Throws std::runtime_error with its output.
Outcome run_ok(const std::vector<std::string>& command, const RunOptions& options = {});

// Returns the words of a command for a message, quoted for a shell.
std::string shell_line(const std::vector<std::string>& command);

// A program that runs until the object is destroyed.  It gets SIGTERM, and then SIGKILL if
// necessary.
class Child {
 public:
  // Both its outputs go to the file `log`.
  Child(const std::vector<std::string>& command, const std::string& log);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }
  // Returns whether it is still running.
  bool running();
  // Sends SIGKILL, and waits.
  void kill();

 private:
  pid_t pid_;
  bool reaped_ = false;
};

}  // namespace vc::support
