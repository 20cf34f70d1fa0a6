// Lists in the syntax of QEMU: key=value,key=value.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "qcow2/format/json_name.h"

namespace vc::tool {

// Splits "a,b,,c" into "a" and "b,c": a doubled comma is a part of an element.
std::vector<std::string> split_list(const std::string& list);

// Parses "driver=qcow2,file.filename=a,,b.qcow2": a doubled comma is part of the value.  `option`
// is for messages.
Result<qcow2::ImageProperties> parse_property_list(const std::string& list, const char* option);

}  // namespace vc::tool
