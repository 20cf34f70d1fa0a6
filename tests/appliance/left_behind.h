// What a program should have taken away with it: temporary files, and processes.
#pragma once

#include <set>
#include <string>

namespace test {

// Looks at once, and again when it is asked.  Of files it looks for libguestfs's; and for all in
// TMPDIR where that is set: to a folder of the run's own, best.
class LeftBehind {
 public:
  LeftBehind();

  // What is there that was not: names of files, and of processes that were started by us or by what
  // we started.  Empty: nothing.
  std::string complaint() const;

 private:
  std::set<std::string> files_;
  std::set<std::string> processes_;
};

}  // namespace test
