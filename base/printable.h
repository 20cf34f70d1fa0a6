// Makes text from images, clients and command lines safe to print in messages.
#pragma once

#include <string>
#include <string_view>

namespace vc {

// Returns `text` as well-formed UTF-8 on one line.  Replaces each byte of these with \xNN: control
// characters (C0, DEL, C1), line and paragraph separators, characters that change the direction of
// writing, and ill-formed UTF-8.  So a name cannot start a new line in a log, send commands to a
// terminal, or appear in a different order.
std::string printable(std::string_view text);

// Like printable(), but keeps newlines and tabs.
std::string printable_lines(std::string_view text);

}  // namespace vc
