// Runs of equal bits in a bitmap whose first bit is the lowest of its first byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "guest/reading/ranges.h"

namespace vc::guest {

// Adds the runs of zero bits among the first `count` bits of `bitmap`, as ranges of `base` + the
// number of the bit.  `bitmap` has at least `count` bits.  Returns how many bits are zero.
uint64_t add_clear_runs(std::span<const std::byte> bitmap, uint64_t count, uint64_t base,
                        Ranges::Builder& out);

}  // namespace vc::guest
