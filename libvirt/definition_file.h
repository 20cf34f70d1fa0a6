// A domain definition in a file.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace tune {

// All of a regular file, or of a pipe.  One that is longer than a definition may be is an error.
qcow2::Result<std::string> read_definition(const std::string& path);
qcow2::Result<std::string> read_definition(int fd, const std::string& name);

// Puts `after` in place of the file's content, whole or not at all, and only if that is still
// `before`.  Mode and owner stay, and a symbolic link stays one.
qcow2::Result<void> replace_definition(const std::string& path, const std::string& before,
                                       const std::string& after);

// Whether libvirt keeps its own definitions there, and would not see that one has changed.
bool is_libvirts_own(const std::string& path);

// What will not work on the filesystems of these images, a line each: cache='none' wants O_DIRECT.
std::vector<std::string> direct_io_complaints(const std::vector<std::string>& images);

}  // namespace tune
