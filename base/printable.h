// Text from images, clients and command lines, for a message.
#pragma once

#include <string>
#include <string_view>

namespace qcow2 {

// Returns `text` in well-formed UTF-8 that does nothing but stand in its line.  Each byte of a
// control character (C0, DEL, C1), of a line or paragraph separator, of a character that changes
// the direction of writing, and of what is not well-formed UTF-8 becomes \xNN.  So a name begins no
// line of its own in a log, sends no commands to a terminal, and does not show in another order.
std::string printable(std::string_view text);

// The same for a text of several lines: newlines and tabs stay.
std::string printable_lines(std::string_view text);

}  // namespace qcow2
