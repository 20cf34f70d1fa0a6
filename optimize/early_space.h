// Checks before the guest is trimmed whether the result fits.
#pragma once

#include <cstdint>
#include <optional>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "copy/copier.h"

namespace vc::optimize {

// All sizes are in bytes.
struct EarlySpace {
  uint64_t free = 0;       // free space in the filesystem of the destination
  uint64_t untrimmed = 0;  // size of the result if nothing is trimmed
  bool fits = false;       // the result fits even untrimmed
  // Smallest possible size of the result: without all that the guest's filesystems do not use,
  // according to their metadata. nullopt if unknown, or if the result fits in any case.
  std::optional<uint64_t> least;
};

// Compares the size of the result of `how`, for a disk of `size` bytes, with the free space at its
// destination. `boots`: an appliance will trim more than `how` leaves out. Reads the source only if
// a disk without zeros would not fit. Then it reads metadata and samples of the data.
Result<EarlySpace> find_early_space(const copy::CopyOptions& how, uint64_t size, bool boots,
                                    Progress& progress, const Cancel& cancel);

}  // namespace vc::optimize
