// Messages for an unknown command name.
#pragma once

#include <string>
#include <vector>

namespace vc::tool {

// Returns the message for `word`: the equivalent command if another program uses that name, similar
// names (one or two edits away), or advice if it is a file name. `arguments`: the words after it,
// which the equivalent command gets if it accepts them. `commands`: the names of all commands.
std::string unknown_command_message(const std::string& word,
                                    const std::vector<std::string>& arguments,
                                    const std::vector<std::string>& commands);

// Returns the number of insertions, deletions, substitutions and swaps of adjacent letters that
// turn one word into the other.
size_t edit_distance(const std::string& a, const std::string& b);

}  // namespace vc::tool
