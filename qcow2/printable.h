// Text from images, clients and command lines, for a message.
#pragma once

#include <string>
#include <string_view>

namespace qcow2 {

// `text` with each control character as \xNN: a name must not begin a line of its own in a log, nor
// send commands to a terminal.
std::string printable(std::string_view text);

}  // namespace qcow2
