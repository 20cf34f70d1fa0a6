#include "tool/nightly/path_pattern.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "tool/nightly/name_pattern.h"

namespace vc::tool {

namespace {

constexpr std::string_view kBackup = ".bak";

std::string_view last_part(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

bool takes(std::string_view pattern, const std::string& name) {
  if (name.starts_with('.') && !pattern.starts_with('.')) return false;
  if (name.ends_with(kBackup) && !pattern.ends_with(kBackup)) return false;
  return matches_pattern(pattern, name);
}

}  // namespace

bool is_path_pattern(const std::string& path) {
  return last_part(path).find_first_of("*?") != std::string_view::npos;
}

std::vector<std::string> paths_matching(const std::string& pattern) {
  const std::string_view part = last_part(pattern);
  const std::string folder = pattern.substr(0, pattern.size() - part.size());
  std::vector<std::string> paths;
  std::error_code error;
  std::filesystem::directory_iterator it(folder, error);
  const std::filesystem::directory_iterator end;
  for (; !error && it != end && paths.size() <= kMostPaths; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (takes(part, name)) paths.push_back(folder + name);
  }
  if (error) return {pattern};
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace vc::tool
