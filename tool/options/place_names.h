// Detects file names that contradict the file's format.
#pragma once

#include <optional>
#include <string>

#include "qcow2/read/chain.h"

namespace vc::tool {

// Returns a warning if the file at `path` gets `format` but has a suffix of another format. Returns
// nullopt otherwise, and for names that are not files: servers, "-", "null:", devices.
std::optional<std::string> name_contradiction(const std::string& path, qcow2::Format format);

}  // namespace vc::tool
