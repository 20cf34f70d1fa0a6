// A survey and the order of an image in words and as JSON, the same for every command.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "qcow2/check/survey.h"

namespace tool {

// "0.3 % (12 runs of 8.2 MiB on average, the longest 31 MiB; 3 seeks)": see qcow2/fragmentation.h.
std::string order_text(const qcow2::Fragmentation::Figures& order, const qcow2::Geometry& geometry);
nlohmann::ordered_json order_json(const qcow2::Fragmentation::Figures& order,
                                  const qcow2::Geometry& geometry);

// Of how many compressed clusters that the guest reads one after the other the second is near the
// first; empty where there are none.
std::string compressed_text(const qcow2::Fragmentation::Figures& order,
                            const qcow2::Geometry& geometry);

// What the clusters of the file are there for, bytes.
nlohmann::ordered_json space_json(const qcow2::Survey& survey, const qcow2::Geometry& geometry);

}  // namespace tool
