#include "tool/options/bracketed_commands.h"

#include "tool/options/arguments.h"

namespace vc::tool {

namespace {

// Cannot occur in a word of a command line.
constexpr char kSeparator = '\0';

}  // namespace

std::vector<std::string> fold_commands(const std::vector<std::string>& words) {
  std::vector<std::string> folded;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] != "[") {
      folded.push_back(words[i]);
      continue;
    }
    std::string command = "[";
    for (++i; i < words.size() && words[i] != "]"; ++i) command += kSeparator + words[i];
    if (i == words.size()) throw UsageError("'[' begins a command, and there is no ']' after it");
    if (command.size() == 1) throw UsageError("'[ ]': the command is missing");
    folded.push_back(std::move(command));
  }
  return folded;
}

std::optional<std::vector<std::string>> unfold_command(const std::string& word) {
  if (word.size() < 2 || word[0] != '[' || word[1] != kSeparator) return std::nullopt;
  std::vector<std::string> command;
  for (size_t at = 1; at < word.size();) {
    const size_t end = std::min(word.find(kSeparator, at + 1), word.size());
    command.push_back(word.substr(at + 1, end - at - 1));
    at = end;
  }
  return command;
}

}  // namespace vc::tool
