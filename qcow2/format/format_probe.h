// Detects the format of a file.
#pragma once

#include "base/result.h"
#include "storage/storage.h"

namespace vc::qcow2 {

enum class Format {
  kQcow2,
  kRaw,
  kLuks,  // a raw disk that is encrypted with LUKS; can only be read
};

const char* to_string(Format format);

// Returns the format by the content: raw if it is no known image format, since a disk may contain
// anything.  These are errors: an empty file, an image of another format, a compressed file, and a
// file with the name of a QCOW2 image but other content.
Result<Format> probe_format(const Storage& storage);

}  // namespace vc::qcow2
