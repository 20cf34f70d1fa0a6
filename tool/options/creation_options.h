// The list behind -o: key=value,…, as qemu-img takes it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "copy/sink/image_options.h"
#include "qcow2/format/header.h"

namespace tool {

struct CreationOptions {
  copy::ImageOptions image;
  std::optional<qcow2::CompressionType> compression_type;
  std::optional<int> compression_level;
  std::optional<uint64_t> size;  // of the disk, bytes: for create, which copies are not
};

// Adds what `list` says.  An error names the key, and what is allowed.  As in qemu-img a comma
// inside of a value is written twice, and of a key that stands twice the last one counts.
qcow2::Result<void> add_creation_options(const std::string& list, CreationOptions& options);

// The keys, for messages and for the test that compares them with the manual.
std::vector<std::string> creation_option_keys();

}  // namespace tool
