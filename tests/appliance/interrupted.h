// A program that is stopped on its way.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace vc::test {

struct Moment {
  std::string step;                 // a part of what the program says
  std::chrono::milliseconds later;  // than that
  int signal;
};

// Runs `command`, sends the signal at that moment, and returns when the program has ended.  What it
// says is added to the file `log`, which must not have `step` in it yet.  Throws std::runtime_error
// when the moment does not come, or the program does not end.
void interrupt(const std::vector<std::string>& command, const std::string& log,
               const Moment& moment);

}  // namespace vc::test
