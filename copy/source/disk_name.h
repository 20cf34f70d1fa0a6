// How a user names a disk.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qcow2/format/format_probe.h"

namespace vc::copy {

struct DiskName {
  std::string name;                     // a path, an NBD URI, or "-"; unused with a command
  std::vector<std::string> command;     // "[ COMMAND ARGS… ]": server to start
  std::optional<qcow2::Format> format;  // files only; nullopt: probe the content
};

}  // namespace vc::copy
