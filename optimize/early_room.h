// Whether the result will have its space, before the guest is trimmed.
#pragma once

#include <cstdint>
#include <optional>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/copier.h"

namespace vc::optimize {

// Bytes.
struct EarlyRoom {
  uint64_t free = 0;       // in the filesystem of the destination
  uint64_t untrimmed = 0;  // that the result takes if nothing is trimmed
  bool fits = false;       // even then
  // That it takes at least, after all is trimmed that the metadata of the guest's filesystems call
  // free.  Nothing: not known, or it fits in any case.
  std::optional<uint64_t> least;
};

// Compares what `how` will write, of a disk of `size` bytes, with what is free in the filesystem of
// its destination.  `boots`: an appliance will trim more than `how` leaves out.  Reads the source
// only if a disk without zeros would not fit, and then metadata and samples of the data.
Result<EarlyRoom> find_early_room(const copy::CopyOptions& how, uint64_t size, bool boots,
                                  Progress& progress, const Cancel& cancel);

}  // namespace vc::optimize
