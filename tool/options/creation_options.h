// The list after -o: key=value,…, with qemu-img's syntax.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "copy/sink/image_options.h"
#include "qcow2/format/header.h"
#include "tool/options/encryption_options.h"

namespace vc::tool {

struct CreationOptions {
  copy::ImageOptions image;
  std::optional<qcow2::CompressionType> compression_type;
  std::optional<int> compression_level;
  EncryptionList encryption;
  std::optional<uint64_t> size;  // of the disk, bytes; for create only, not for copies
};

// Parses `list` into `options`. An error names the key and the allowed values. As in qemu-img, a
// comma inside of a value is doubled, and the last of repeated keys counts.
Result<void> add_creation_options(const std::string& list, CreationOptions& options);

// Returns the keys, for messages and for the test that compares them with the manual.
std::vector<std::string> creation_option_keys();

}  // namespace vc::tool
