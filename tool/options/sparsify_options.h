// virt-sparsify's options, for scripts written for it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"

namespace vc::tool {

// Adds an option that is always an error and that no help lists. `why` names the option to use
// instead.
void add_refused_option(CLI::App& app, const std::string& name, bool takes_value,
                        const std::string& why);

// Adds --zero, which is always an error: it would destroy the guest's data.
void refuse_zero_option(CLI::App& app);

// Parses the value of --tmp. Returns an error for virt-sparsify's "prebuilt:FILE".
Result<std::string> parse_temporary_folder(const std::string& text);

}  // namespace vc::tool
