// Image formats as they are named on the command line.
#pragma once

#include <string>

#include "qcow2/chain.h"
#include "qcow2/result.h"

namespace tool {

qcow2::Result<qcow2::Format> parse_format(const std::string& text);

}  // namespace tool
