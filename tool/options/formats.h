// Names of image formats on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "qcow2/read/chain.h"

namespace vc::tool {

// Parses "qcow2" or "raw". Any other word is an invalid-argument error.
Result<std::optional<qcow2::Format>> parse_format(const std::string& text);

// Adds an option that takes a format name.
CLI::Option* add_format_option(CLI::App& app, const std::string& names,
                               std::optional<qcow2::Format>& target,
                               const std::string& description);

}  // namespace vc::tool
