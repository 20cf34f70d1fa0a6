// Whether files are still what they were.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/read/chain.h"

namespace vc::optimize {

// What locks do not tell: a file that somebody writes to who takes none, on storage that has none,
// or that another file has taken the place of.
class Unchanged {
 public:
  // Remembers all files of `chain`, under the names that it has opened them by.
  static Result<Unchanged> since_now(const qcow2::Chain& chain);

  // An error that names the first one that is another file by now, or of another length, or that
  // was written to.
  Result<void> check() const;

  // Whether both remember the same files, in the same order, by whatever names.
  bool same_files(const Unchanged& other) const;

 private:
  struct File {
    std::string name;
    struct stat status;
  };
  std::vector<File> files_;
};

}  // namespace vc::optimize
