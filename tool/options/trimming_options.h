// Options that choose what is trimmed of a guest, and how: for all commands that trim.
#pragma once

#include "appliance/trim.h"
#include "tool/options/arguments.h"

namespace vc::tool {

// Adds --key, --filesystems, --ignore and --drop. They bind to `options`, which must outlive `app`.
void add_trimming_options(CLI::App& app, appliance::TrimOptions& options);

}  // namespace vc::tool
