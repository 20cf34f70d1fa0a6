// What the filesystems on a source leave free.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "copy/source/any_source.h"
#include "guest/inspection.h"
#include "guest/reading/ranges.h"

namespace copy {

struct FreeSpace {
  guest::Inspection inspection;
  std::shared_ptr<const guest::Ranges> ranges;  // of the disk
  uint64_t stored = 0;                          // bytes of `ranges` that the source says are data
};

// Reads the metadata of the filesystems.  An error for a stream.  One thread at a time, and not
// while a pipeline runs on the source.
qcow2::Result<FreeSpace> find_free_space(const AnySource& source);

}  // namespace copy
