// Finds runs of equal bits in a bitmap. Bit 0 is the lowest bit of the first byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "guest/reading/ranges.h"

namespace vc::guest {

// Adds the runs of zero bits among the first `count` bits of `bitmap`, as ranges from `base` on.
// `bitmap` must have at least `count` bits. Returns the number of zero bits.
uint64_t add_clear_runs(std::span<const std::byte> bitmap, uint64_t count, uint64_t base,
                        Ranges::Builder& out);

}  // namespace vc::guest
