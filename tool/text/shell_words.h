// Quotes words for a shell.
#pragma once

#include <string>
#include <vector>

namespace vc::tool {

// Returns the words of a command line, separated by blanks. Words with characters that are special
// to a POSIX shell are quoted.
std::string shell_words(const std::vector<std::string>& words);

}  // namespace vc::tool
