// A temporary folder of a test, which is removed with its content at the end.
#pragma once

#include <string>
#include <vector>

namespace vc::support {

class TempDirectory {
 public:
  // Creates the folder in TMPDIR, or in /tmp. With VIRT_COMPACT_KEEP in the environment, keeps it
  // and prints its path.
  TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  ~TempDirectory();

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Returns the names in a folder, sorted.
std::vector<std::string> list_directory(const std::string& path);

}  // namespace vc::support
