// Free space in the filesystems of a source.
#pragma once

#include <cstdint>
#include <memory>

#include "base/cancel.h"
#include "base/result.h"
#include "copy/source/source.h"
#include "guest/inspection.h"
#include "guest/reading/ranges.h"

namespace vc::copy {

struct FreeSpace {
  guest::Inspection inspection;
  std::shared_ptr<const guest::Ranges> ranges;  // offsets of the disk
  uint64_t stored = 0;  // bytes of `ranges` that are data according to the source
};

// Reads the metadata of the filesystems. Returns an error for a stream, and after a cancellation.
// Not thread-safe; must not run concurrently with a pipeline on the source.
Result<FreeSpace> find_free_space(Source& source, const Cancel& cancel);

}  // namespace vc::copy
