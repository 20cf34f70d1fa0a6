#include "tool/options/property_list.h"

#include <fmt/format.h>

namespace vc::tool {

Result<qcow2::ImageProperties> parse_property_list(const std::string& list, const char* option) {
  qcow2::ImageProperties properties;
  for (size_t at = 0; at < list.size();) {
    std::string word;
    for (; at < list.size(); ++at) {
      if (list[at] == ',' && (at + 1 == list.size() || list[at + 1] != ',')) break;
      if (list[at] == ',') ++at;
      word += list[at];
    }
    ++at;
    const size_t equals = word.find('=');
    if (equals == std::string::npos)
      return fail(Error::invalid(fmt::format("{}: '{}' is not KEY=VALUE", option, word)));
    properties[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return properties;
}

}  // namespace vc::tool
