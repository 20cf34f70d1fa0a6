// "json:{…}" names, QEMU's syntax for an image with its drivers.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vc::qcow2 {

// The properties of an image, with QEMU's dotted keys: "driver", "file.filename".
using ImageProperties = std::map<std::string, std::string>;

// A local file.  `driver` is the format in QEMU's words ("qcow2", "raw"); empty: the content
// decides.
struct NamedFile {
  std::string path;
  std::string driver;
};

bool is_json_name(std::string_view name);

// Parses a name for which is_json_name () is true, nested or with dotted keys.  An error if it is
// not a JSON object.
Result<ImageProperties> parse_json_name(std::string_view name);

// Returns the file that the properties name.  An error if it is not local, or if there are
// properties other than the name and the format: otherwise a part of a file could be read as the
// whole.
Result<NamedFile> named_file(ImageProperties properties);

// Returns the driver of a json: name that names a file; empty for any other name.
std::string json_driver(std::string_view name);

}  // namespace vc::qcow2
