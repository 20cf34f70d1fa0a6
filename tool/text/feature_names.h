// Readable names of QCOW2 features.
#pragma once

#include <string>
#include <vector>

#include "qcow2/format/header.h"

namespace vc::tool {

enum class FeatureKind : uint8_t { kIncompatible = 0, kCompatible = 1, kAutoclear = 2 };

// Returns a name for each set bit, from bit 0 up: from the image's own table of names, else from
// the known names, else "unknown bit N".
std::vector<std::string> feature_names(const qcow2::Header& header, FeatureKind kind);

}  // namespace vc::tool
