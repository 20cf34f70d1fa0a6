// QEMU's lists of properties: key=value,key=value.
#pragma once

#include <string>

#include "base/result.h"
#include "qcow2/format/json_name.h"

namespace vc::tool {

// Parses "driver=qcow2,file.filename=a,,b.qcow2": a doubled comma is part of the value.  `option`
// is for messages.
Result<qcow2::ImageProperties> parse_property_list(const std::string& list, const char* option);

}  // namespace vc::tool
