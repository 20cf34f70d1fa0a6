// Joins a list into one text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vc::tool {

inline std::string join_words(const std::vector<std::string>& words, std::string_view between) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += between;
    text += word;
  }
  return text;
}

}  // namespace vc::tool
