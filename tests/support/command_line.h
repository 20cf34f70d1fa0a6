// Runs the built virt-compact, as a user does.
#pragma once

#include <string>
#include <vector>

#include "tests/support/process.h"

namespace vc::tool_test {

// Returns the path of the command: VIRT_COMPACT in the environment, which the build sets. Throws
// std::runtime_error without it.
std::string virt_compact();

// Returns the path of the nbdkit plugin: VIRT_COMPACT_PLUGIN.
std::string plugin();

// Returns the checkout, for tests of files in it: VIRT_COMPACT_SOURCE_ROOT.
std::string source_root();

// Runs `virt-compact <arguments>`.
support::Outcome run_tool(std::vector<std::string> arguments,
                          const support::RunOptions& options = {});

// Runs the command from a shell script, for redirections and signals. In `script`, it is
// "$VIRT_COMPACT", and `arguments` are "$1" and so on.
support::Outcome run_script(const std::string& script,
                            const std::vector<std::string>& arguments = {});

// Returns the output of qemu-img in the form of QEMU 7.2, which virt-compact uses. Drops lines
// about files below an image, which QEMU 8 and later print. QEMU 10 has other headings and clocks
// in lists of snapshots. Keeps the widths of columns.
std::string in_our_words(const std::string& qemu_img_output);

}  // namespace vc::tool_test
