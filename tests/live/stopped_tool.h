// virt-compact, stopped at a moment of a live run (stop_at.cc).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace vc::live_test {

inline constexpr std::chrono::seconds kLongestWait{300};

// Calls `is_done` until it returns true. Throws after a long time, as a last resort.
void wait_until(const char* what, const std::function<bool()>& is_done);

// Returns the content of a file.
std::string text_of(const std::string& path);

// Returns the inode of a file; 0: there is none.
ino_t inode(const std::string& path);

// Returns the variable of the environment that stops the command at a step: see stop_at.cc.
std::string stop_at(const std::string& step);

class StoppedTool {
 public:
  // Runs virt-compact with `arguments`, until it stops as `environment` says. The output goes to
  // the file `log`.
  StoppedTool(const std::vector<std::string>& arguments, const std::string& environment,
              const std::string& log);

  void kill() { child_.kill(); }
  void go_on();
  // Waits for the end, and returns the output.
  std::string finish();
  pid_t pid() const { return child_.pid(); }

 private:
  std::string log_;
  support::Child child_;
};

}  // namespace vc::live_test
