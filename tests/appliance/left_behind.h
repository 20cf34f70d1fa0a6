// What a program should have taken away with it: temporary files, and processes.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "tests/support/temp_directory.h"

namespace vc::test {

// Looks at once, and again when it is asked.  While it lives TMPDIR is a folder of its own, so that
// what others leave is not ours; one of them at a time.
class LeftBehind {
 public:
  LeftBehind();
  LeftBehind(const LeftBehind&) = delete;
  LeftBehind& operator=(const LeftBehind&) = delete;
  ~LeftBehind();

  // What is there that was not: names of files, and of processes that were started by us or by what
  // we started.  Empty: nothing.
  std::string complaint() const;

 private:
  std::set<std::string> files() const;

  std::optional<std::string> temporary_;  // TMPDIR as it was
  support::TempDirectory folder_;
  std::set<std::string> files_;
  std::set<std::string> processes_;
};

}  // namespace vc::test
