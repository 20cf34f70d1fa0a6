// A LUKS header, in the words of qemu-img info.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "crypto/luks_header.h"

namespace vc::tool {

nlohmann::ordered_json luks_json(const crypto::LuksHeader& luks);

// Returns lines with this indentation.
std::string luks_lines(const crypto::LuksHeader& luks, size_t indent);

}  // namespace vc::tool
