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

// Runs `command`, sends the signal at that moment, and returns when the program has ended. Appends
// the program's output to the file `log`, which must not contain `step` yet. Throws
// std::runtime_error if the moment does not come, or if the program does not end.
void interrupt(const std::vector<std::string>& command, const std::string& log,
               const Moment& moment);

}  // namespace vc::test
