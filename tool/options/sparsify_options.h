// virt-sparsify's options, for scripts that were written for it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"

namespace vc::tool {

// An option that no help lists, and that is an error: `why` says what to use instead.
void add_refused_option(CLI::App& app, const std::string& name, bool takes_value,
                        const std::string& why);

// --zero, which destroys what a guest has, on any command.
void refuse_zero_option(CLI::App& app);

// --tmp DIR, of which there is "prebuilt:FILE" in virt-sparsify.
Result<std::string> parse_temporary_folder(const std::string& text);

}  // namespace vc::tool
