// Running other programs: what they say, how they end, in bounded time.
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
  uint64_t peak_memory = 0;  // bytes of resident memory, at most at one time
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

// Runs `command`, whose first word is looked up in PATH, to its end.  A program that is still there
// at the timeout is killed, with its process group.  Throws std::runtime_error when it cannot be
// started at all, so that a missing tool is a failure.
Outcome run(const std::vector<std::string>& command, const RunOptions& options = {});

// The same for a program that must succeed: throws std::runtime_error with what it said.
Outcome run_ok(const std::vector<std::string>& command, const RunOptions& options = {});

// For a message: the words of a command, quoted so that a shell reads them as they are.
std::string shell_line(const std::vector<std::string>& command);

// A program that runs until the object goes.  It gets SIGTERM, and SIGKILL if that does not help.
class Child {
 public:
  // Both its outputs go to the file `log`.
  Child(const std::vector<std::string>& command, const std::string& log);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }
  // Whether it is still there.
  bool running();
  // SIGKILL, and waits.
  void kill();

 private:
  pid_t pid_;
  bool reaped_ = false;
};

}  // namespace vc::support
