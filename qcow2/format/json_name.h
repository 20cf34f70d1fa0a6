// "json:{…}", QEMU's way to name an image with the drivers that open it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace qcow2 {

// Of an image, by QEMU's dotted names: "driver", "file.filename".
using ImageProperties = std::map<std::string, std::string>;

// A file of this machine.  `driver` is the format on top of it in QEMU's words ("qcow2", "raw");
// empty: its content decides.
struct NamedFile {
  std::string path;
  std::string driver;
};

bool is_json_name(std::string_view name);

// What a name that is_json_name () says, nested or with dots.  An error if it is no JSON object.
Result<ImageProperties> parse_json_name(std::string_view name);

// The file that the properties name.  An error if it is none of this machine, or if they say
// anything else than where it is and what its format is: a part of a file would be read as all.
Result<NamedFile> named_file(ImageProperties properties);

// The driver of a json: name that names a file; empty for any other name.
std::string json_driver(std::string_view name);

}  // namespace qcow2
