// Running the built virt-compact as a user does.
#pragma once

#include <string>
#include <vector>

#include "tests/support/process.h"

namespace tool_test {

// The path of the command: VIRT_COMPACT in the environment, which the build sets.  Throws
// std::runtime_error without it.
std::string virt_compact();

// The folder of the manual pages' sources: VIRT_COMPACT_MAN.
std::string manual_folder();

// `virt-compact <arguments>`.
support::Outcome run_tool(std::vector<std::string> arguments,
                          const support::RunOptions& options = {});

// The command behind a shell: for redirections and signals.  In `script` it is "$VIRT_COMPACT", and
// `arguments` are "$1" and on.
support::Outcome run_script(const std::string& script,
                            const std::vector<std::string>& arguments = {});

}  // namespace tool_test
