// Discards in an image of which only a dry run sees the changes.
#pragma once

#include <memory>
#include <vector>

#include "base/byte_range.h"
#include "base/result.h"
#include "qcow2/format/encryption.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Discards ranges of the disk, and returns the image as it would be then.  Reads neither data nor
// the backing file.  `encryption` is that of Image::open.
Result<std::shared_ptr<Storage>> discard_in_memory(
    const std::shared_ptr<Storage>& image, const std::shared_ptr<const Encryption>& encryption,
    const std::vector<ByteRange>& ranges);

}  // namespace vc::qcow2
