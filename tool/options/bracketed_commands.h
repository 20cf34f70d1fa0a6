// "[ COMMAND ARGS… ]" on the command line: a server to start.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace vc::tool {

// Folds each "[ … ]" into one word, so that its content is not parsed as our options. Brackets must
// be separate words, as in nbdcopy, and do not nest. Throws UsageError if a bracket is not closed
// or encloses nothing.
std::vector<std::string> fold_commands(const std::vector<std::string>& words);

// Returns the words of a folded command. nullopt for any other word.
std::optional<std::vector<std::string>> unfold_command(const std::string& word);

}  // namespace vc::tool
