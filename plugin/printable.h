// Text from clients and images, for a log.
#pragma once

#include <string>
#include <string_view>

namespace plugin {

// `text` with each control character as \xNN: an export name that a client asks for must not begin
// a line of its own in the log, nor send commands to a terminal.
std::string printable(std::string_view text);

}  // namespace plugin
