#include "tool/text/shell_words.h"

#include <string_view>

#include "tool/text/join_words.h"

namespace vc::tool {

namespace {

constexpr std::string_view kPlain =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,-./:=@_%";

std::string quoted(const std::string& word) {
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string text = "'";
  for (const char it : word) {
    if (it == '\'')
      text += "'\\''";
    else
      text += it;
  }
  return text + "'";
}

}  // namespace

std::string shell_words(const std::vector<std::string>& words) {
  std::vector<std::string> texts;
  texts.reserve(words.size());
  for (const std::string& it : words) texts.push_back(quoted(it));
  return join_words(texts, " ");
}

}  // namespace vc::tool
