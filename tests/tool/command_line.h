// Running the built virt-compact as a user does.
#pragma once

#include <string>
#include <vector>

#include "tests/support/process.h"

namespace tool_test {

// The path of the command: VIRT_COMPACT in the environment, which the build sets.  Throws
// std::runtime_error without it.
std::string virt_compact();

// The checkout, for what is tested as it stands there: VIRT_COMPACT_SOURCE_ROOT.
std::string source_root();

// `virt-compact <arguments>`.
support::Outcome run_tool(std::vector<std::string> arguments,
                          const support::RunOptions& options = {});

// The command behind a shell: for redirections and signals.  In `script` it is "$VIRT_COMPACT", and
// `arguments` are "$1" and on.
support::Outcome run_script(const std::string& script,
                            const std::vector<std::string>& arguments = {});

}  // namespace tool_test
