// "[ COMMAND ARGS… ]" on the command line: a server to start.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace tool {

// Makes one word of each "[ … ]", so that what is inside is not taken for options of ours. Brackets
// are words of their own, as nbdcopy wants them too; they do not nest.  Throws UsageError when a
// bracket is not closed, or there is nothing inside.
std::vector<std::string> fold_commands(const std::vector<std::string>& words);

// The words of a command that was folded; nothing for any other word.
std::optional<std::vector<std::string>> unfold_command(const std::string& word);

}  // namespace tool
