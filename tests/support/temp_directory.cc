#include "tests/support/temp_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <system_error>

namespace vc::support {

TempDirectory::TempDirectory() {
  const char* parent = std::getenv("TMPDIR");
  path_ = fmt::format("{}/virt-compact-test-XXXXXX", parent && *parent ? parent : "/tmp");
  if (!::mkdtemp(path_.data())) throw std::runtime_error("cannot make " + path_);
}

TempDirectory::~TempDirectory() {
  if (std::getenv("VIRT_COMPACT_KEEP")) {
    fmt::print(stderr, "kept: {}\n", path_);
    return;
  }
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> list_directory(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace vc::support
