// The JSON format of this program.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace vc::tool {

// Both return ASCII, as qemu-img does: other characters become \uNNNN, so that names cannot affect
// a terminal. Bytes that are not UTF-8 become U+FFFD.

// Returns several lines with a newline at the end.
std::string json_text(const nlohmann::ordered_json& json);

// Returns one line without a newline.
std::string json_line(const nlohmann::ordered_json& json);

}  // namespace vc::tool
