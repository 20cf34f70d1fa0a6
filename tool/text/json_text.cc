#include "tool/text/json_text.h"

#include <nlohmann/json.hpp>

namespace vc::tool {

using nlohmann::ordered_json;

std::string json_text(const ordered_json& json) {
  return json.dump(4, ' ', true, ordered_json::error_handler_t::replace) + "\n";
}

std::string json_line(const ordered_json& json) {
  return json.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

}  // namespace vc::tool
