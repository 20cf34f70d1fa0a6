// A program that is interrupted by a signal.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace vc::test {

struct Moment {
  std::string step;                 // a part of the program's output
  std::chrono::milliseconds later;  // after that output
  int signal;
};

// Runs `command`, sends the signal at that moment, and returns when the program has ended.  The
// program's output is appended to the file `log`, which must not contain `step` yet.  Throws
// std::runtime_error if the moment does not come, or the program does not end.
void interrupt(const std::vector<std::string>& command, const std::string& log,
               const Moment& moment);

}  // namespace vc::test
