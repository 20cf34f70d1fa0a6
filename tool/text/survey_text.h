// Formats the survey and the fragmentation of an image as text and JSON, for all commands.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "qcow2/check/survey.h"

namespace vc::tool {

// Formats "0.3 % (12 runs of 8.2 MiB on average, the longest 31 MiB; 3 seeks)": see
// qcow2/check/fragmentation.h.
std::string order_text(const qcow2::Fragmentation::Figures& order, const qcow2::Geometry& geometry);
nlohmann::ordered_json order_json(const qcow2::Fragmentation::Figures& order,
                                  const qcow2::Geometry& geometry);

// Returns the share of compressed clusters that lie near their predecessor in guest order. Empty if
// there are no compressed clusters.
std::string compressed_text(const qcow2::Fragmentation::Figures& order,
                            const qcow2::Geometry& geometry);

// Returns the bytes of the file by use of its clusters.
nlohmann::ordered_json space_json(const qcow2::Survey& survey, const qcow2::Geometry& geometry);

}  // namespace vc::tool
