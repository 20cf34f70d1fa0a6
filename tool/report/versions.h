// The versions of programs and libraries, for bug reports.
#pragma once

#include "tool/terminal/console.h"

namespace vc::tool {

// Prints a note with the version of virt-compact and that of the kernel. With -x, also prints those
// of the libraries and programs that it uses, and runs these programs.
void print_versions(const Console& console, const char* version);

}  // namespace vc::tool
