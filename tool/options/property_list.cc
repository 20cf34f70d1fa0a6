#include "tool/options/property_list.h"

#include <fmt/format.h>

namespace vc::tool {

std::vector<std::string> split_list(const std::string& list) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] != ',') {
      parts.back() += list[i];
    } else if (i + 1 < list.size() && list[i + 1] == ',') {
      parts.back() += ',';
      ++i;
    } else {
      parts.emplace_back();
    }
  }
  return parts;
}

Result<qcow2::ImageProperties> parse_property_list(const std::string& list, const char* option) {
  std::vector<std::string> words = split_list(list);
  if (words.back().empty()) words.pop_back();
  qcow2::ImageProperties properties;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos)
      return fail(Error::invalid(fmt::format("{}: '{}' is not KEY=VALUE", option, word)));
    properties[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return properties;
}

}  // namespace vc::tool
