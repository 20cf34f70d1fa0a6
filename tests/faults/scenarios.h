// The commands that write, and what must hold of them whatever fails.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace vc::faults {

struct Scenario {
  std::string name;
  std::vector<std::string> command;  // run in a folder that `prepare` has filled
  std::string subject;               // the file that is changed or made
  std::function<void(const std::string& folder)> prepare;
  // Whether the command has done what it was asked for.
  std::function<bool(const std::string& folder)> has_taken_effect;
  // What is wrong with the disks, whether it has or not; empty: nothing.
  std::function<std::string(const std::string& folder)> complaint;
  std::vector<std::string> untouched = {};   // files that stay as they are, byte for byte
  std::vector<std::string> may_appear = {};  // names that may be there afterwards
  // What an error says, one of them, that comes when the command has taken effect.
  std::vector<std::string> states = {"but an error occurred after that"};
  std::vector<std::string> again = {};  // after an error; empty: the same command
};

std::vector<Scenario> scenarios();

// What was made to fail in a run.
struct Fault {
  std::string kind;
  unsigned number = 0;  // 0: nothing
  int errnum = 0;
};

// Checks what a run with the fault has left in `folder`, which was as `prepared` before; `failed`:
// the fault has happened.
void judge(const Scenario& scenario, const support::Outcome& outcome, const std::string& folder,
           const std::string& prepared, const Fault& fault, bool failed);

}  // namespace vc::faults
