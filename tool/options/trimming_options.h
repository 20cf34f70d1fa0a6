// What is trimmed of a guest, and how: the options of trim, and of all that trims.
#pragma once

#include "appliance/trim.h"
#include "tool/options/arguments.h"

namespace vc::tool {

// --key, --filesystems, --ignore and --drop.  They bind to `options`, which must outlive `app`.
void add_trimming_options(CLI::App& app, appliance::TrimOptions& options);

}  // namespace vc::tool
