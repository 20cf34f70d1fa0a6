// An overlay becomes an image of its own, in place.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "qcow2/read/chain.h"

namespace copy {

struct FlattenSummary {
  std::string backing_file;   // as the header named it
  uint64_t virtual_size = 0;  // bytes
  uint64_t written = 0;       // bytes of the disk that came (or would) from the backing chain
  uint64_t zeros = 0;         // bytes that the chain stored, and that were zeros
  uint64_t length_before = 0, length_after = 0;  // of the file, bytes
  uint64_t blocks_before = 0, blocks_after = 0;  // that it takes on the disk, bytes
  std::chrono::duration<double> elapsed{};
};

// Writes into the image at `path` what its disk reads from its backing files, and then takes their
// name out of its header.  What the disk reads as never changes, whenever this is interrupted:
// until that last write it has its backing file, and behind it needs none.  Backing files are only
// read.
//
// An image without a backing file, or with snapshots, which need it as well, is an error, and so is
// a filesystem without the room; nothing has changed then.
qcow2::Result<FlattenSummary> flatten(const std::string& path, std::optional<qcow2::Format> format,
                                      const qcow2::Trust& trust, Progress& progress,
                                      const Cancel& cancel);

// What that would write, and whether there is space for it, without opening anything for writing.
qcow2::Result<FlattenSummary> foretell_flatten(const std::string& path,
                                               std::optional<qcow2::Format> format,
                                               const qcow2::Trust& trust, Progress& progress,
                                               const Cancel& cancel);

}  // namespace copy
