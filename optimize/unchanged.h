// Detects changed files.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/read/chain.h"

namespace vc::optimize {

// Finds changes that locks do not prevent: by a writer that takes no locks, on storage without
// locks, or by replacing the file.
class Unchanged {
 public:
  // Remembers all files of `chain`, under the names by which they were opened.
  static Result<Unchanged> since_now(const qcow2::Chain& chain);

  // Returns an error that names the first file that was replaced, resized or written to.
  Result<void> check() const;

  // Returns true if both remember the same files in the same order, whatever their names.
  bool same_files(const Unchanged& other) const;

 private:
  struct File {
    std::string name;
    struct stat status;
  };
  std::vector<File> files_;
};

}  // namespace vc::optimize
