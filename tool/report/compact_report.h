// The output of `compact`, and of its dry run as `measure --in-place`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "qcow2/relocate/in_place.h"

namespace vc::tool {

// Returns the bytes that the file becomes shorter.
uint64_t compact_gain(const qcow2::InPlaceSummary& summary);

// Returns the summary as text, with `more` lines about what was done before.  Ends with a newline.
std::string compact_report(const std::string& disk, const qcow2::InPlaceSummary& summary,
                           bool dry_run, const std::string& more = "");

// Returns the summary as JSON, sizes in bytes.
nlohmann::ordered_json compact_report_json(const std::string& disk,
                                           const qcow2::InPlaceSummary& summary, bool dry_run);

// Returns the warning about leaks that stay.  Empty: there are none.
std::string warning_of_leaks(const std::string& disk, const qcow2::InPlaceSummary& summary);

}  // namespace vc::tool
