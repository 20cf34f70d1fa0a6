// Names that say another format than the one a file gets.
#pragma once

#include <optional>
#include <string>

#include "qcow2/read/chain.h"

namespace tool {

// A warning if the name of the file at `path`, which gets `format`, ends as those of another format
// do; nothing if it does not, or says nothing, or is no file's: a server's, "-", "null:" or a
// device's.
std::optional<std::string> name_contradiction(const std::string& path, qcow2::Format format);

}  // namespace tool
