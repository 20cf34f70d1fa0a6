// What tests of compact ask of an image and of a run.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::compact_test {

// Returns the bytes of the disk, and those at its snapshot "first".  Writes files into `folder`.
std::vector<std::vector<std::byte>> states_of(const support::TempDirectory& folder,
                                              const std::string& disk);

// Returns the JSON that a successful run has printed.
nlohmann::json summary(const support::Outcome& outcome);

}  // namespace vc::compact_test
