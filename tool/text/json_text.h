// JSON as this command writes it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tool {

// Both are ASCII, as qemu-img's JSON is: other characters are \uNNNN, so that names do nothing to a
// terminal, and a byte that is not UTF-8 becomes U+FFFD.

// Over several lines, and with a newline at the end.
std::string json_text(const nlohmann::ordered_json& json);

// In one line, without a newline.
std::string json_line(const nlohmann::ordered_json& json);

}  // namespace tool
