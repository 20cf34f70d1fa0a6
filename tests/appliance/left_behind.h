// Temporary files and processes that a program should have removed.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "tests/support/temp_directory.h"

namespace vc::test {

// Lists files and processes on construction and on each call.  During its lifetime, TMPDIR is a
// separate folder, so that files of other programs do not count.  Only one may exist at a time.
class LeftBehind {
 public:
  LeftBehind();
  LeftBehind(const LeftBehind&) = delete;
  LeftBehind& operator=(const LeftBehind&) = delete;
  ~LeftBehind();

  // Returns the names of new files, and of new processes that this process or its descendants have
  // started.  Empty if there are none.
  std::string complaint() const;

 private:
  std::set<std::string> files() const;

  std::optional<std::string> temporary_;  // the old value of TMPDIR
  support::TempDirectory folder_;
  std::set<std::string> files_;
  std::set<std::string> processes_;
};

}  // namespace vc::test
