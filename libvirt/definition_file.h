// A domain definition in a file.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace vc::libvirt {

// Reads a whole regular file or pipe. Returns an error if it is longer than a definition may be.
Result<std::string> read_definition(const std::string& path);
Result<std::string> read_definition(int fd, const std::string& name);

// Replaces the file's content with `after`, atomically, only if it still is `before`. Keeps mode
// and owner. A symbolic link stays a link.
Result<void> replace_definition(const std::string& path, const std::string& before,
                                const std::string& after);

// Returns true if libvirt keeps its own definitions there. libvirt would not notice a change of
// such a file.
bool is_libvirts_own(const std::string& path);

// Returns a line for each image whose filesystem does not support O_DIRECT, which cache='none'
// needs.
std::vector<std::string> direct_io_complaints(const std::vector<std::string>& images);

}  // namespace vc::libvirt
