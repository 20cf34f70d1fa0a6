// Image formats as they are named on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "qcow2/read/chain.h"

namespace tool {

// "qcow2" or "raw"; any other word is an error, invalid.
qcow2::Result<std::optional<qcow2::Format>> parse_format(const std::string& text);

// An option that takes the name of a format.
CLI::Option* add_format_option(CLI::App& app, const std::string& names,
                               std::optional<qcow2::Format>& target,
                               const std::string& description);

}  // namespace tool
