// The commands that write, and the conditions that hold after any failure.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace vc::faults {

struct Scenario {
  std::string name;
  std::vector<std::string> command;  // runs in a folder that `prepare` has filled
  std::string subject;               // the file that is changed or created
  std::function<void(const std::string& folder)> prepare;
  // Returns true if the command has completed its task.
  std::function<bool(const std::string& folder)> has_taken_effect;
  // Returns the problem of the disks, whether or not the command has taken effect. Empty if there
  // is none.
  std::function<std::string(const std::string& folder)> complaint;
  std::vector<std::string> untouched = {};   // files that must not change
  std::vector<std::string> may_appear = {};  // names that may exist afterwards
  // Texts of which an error must contain one if the command has taken effect.
  std::vector<std::string> states = {"but an error occurred after that"};
  std::vector<std::string> again = {};  // the next try after an error; empty: the same command
};

std::vector<Scenario> scenarios();

// The call that fails in a run.
struct Fault {
  std::string kind;
  unsigned number = 0;  // 0: nothing
  int errnum = 0;
};

// Checks the state of `folder` after a run with the fault. `prepared`: the folder before the run.
// `failed`: the fault has happened.
void judge(const Scenario& scenario, const support::Outcome& outcome, const std::string& folder,
           const std::string& prepared, const Fault& fault, bool failed);

}  // namespace vc::faults
