// Values of options of optimize, which the policy of nightly has, too.
#pragma once

#include <string>

#include "base/result.h"
#include "optimize/free_space_plan.h"
#include "optimize/gain.h"

namespace vc::tool {

// Parses SIZE or PERCENT%. The limit has only the one that is given.
Result<optimize::GainLimit> parse_gain(const std::string& text);

// Parses "auto", "metadata", "appliance" or "none".
Result<optimize::Trimming> parse_trimming(const std::string& text);

}  // namespace vc::tool
