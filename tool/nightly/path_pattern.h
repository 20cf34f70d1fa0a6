// Patterns for the files of a folder.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace vc::tool {

// Returns true if the last part of the path is a pattern: see name_pattern.h.
bool is_path_pattern(const std::string& path);

// The overlays of each disk are looked for among all disks, so the time grows with the square.
constexpr size_t kMostPaths = 10000;

// Returns the paths of the files that the pattern takes, at most kMostPaths + 1, in the order of
// their names.  As in a shell, "*" and "?" stand for no dot at the start of a name, so that hidden
// files of a run under way are left out.  So are backups, unless the pattern ends with ".bak"
// itself.  Returns the pattern if the folder cannot be read: the caller, who opens that, gets the
// error.
std::vector<std::string> paths_matching(const std::string& pattern);

}  // namespace vc::tool
