// Features of QCOW2 images by the names that people know.
#pragma once

#include <string>
#include <vector>

#include "qcow2/format/header.h"

namespace tool {

enum class FeatureKind : uint8_t { kIncompatible = 0, kCompatible = 1, kAutoclear = 2 };

// A name for each bit that is set, from bit 0 up: the image's own table of names has the first
// word, then come those that we know, and a bit that nobody knows is "unknown bit N".
std::vector<std::string> feature_names(const qcow2::Header& header, FeatureKind kind);

}  // namespace tool
