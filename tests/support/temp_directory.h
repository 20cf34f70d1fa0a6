// A temporary folder of a test, which is removed with its content at the end.
#pragma once

#include <string>
#include <vector>

namespace vc::support {

class TempDirectory {
 public:
  // Under TMPDIR, or /tmp.  With VIRT_COMPACT_KEEP in the environment, it is kept, and its
  // path is printed.
  TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  ~TempDirectory();

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// The names in a folder, sorted.
std::vector<std::string> list_directory(const std::string& path);

}  // namespace vc::support
