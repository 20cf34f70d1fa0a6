// The first word of a command line that is no command of ours.
#pragma once

#include <string>
#include <vector>

namespace tool {

// What to say of `word`: the command that does the same, if another program has it by that name;
// the commands that differ from it by a letter or two; what to do with a file's name.  `commands`
// are the names that there are.
std::string unknown_command_message(const std::string& word,
                                    const std::vector<std::string>& commands);

// How many letters must be put in, left out, exchanged, or swapped with their neighbour, to make
// one word of the other.
size_t edit_distance(const std::string& a, const std::string& b);

}  // namespace tool
