#include "guest/filesystem/swap_files.h"

#include <algorithm>
#include <sstream>

namespace vc::guest {

std::vector<std::string> swap_file_paths(std::string_view fstab) {
  std::vector<std::string> paths{"/swapfile", "/swap.img", "/swap/swapfile", "/var/swap"};
  std::istringstream lines{std::string(fstab)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string what, where, type;
    if (words >> what >> where >> type && type == "swap" && what.starts_with("/") &&
        !what.starts_with("/dev/"))
      paths.push_back(what);
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

}  // namespace vc::guest
