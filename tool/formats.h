// Image formats as they are named on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "qcow2/chain.h"

namespace tool {

// An option that takes the name of a format.
CLI::Option* add_format_option(CLI::App& app, const std::string& names,
                               std::optional<qcow2::Format>& target,
                               const std::string& description);

}  // namespace tool
