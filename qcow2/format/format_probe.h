// Which format a file has.
#pragma once

#include "base/result.h"
#include "storage/storage.h"

namespace qcow2 {

enum class Format { kQcow2, kRaw };

const char* to_string(Format format);

// Returns what the content of a file says that it is: raw if it is no known image, since a disk
// may look like anything.  An empty file, an image of another format, a compressed file, and a
// file with the name of a QCOW2 image and other content are errors.
Result<Format> probe_format(const Storage& storage);

}  // namespace qcow2
