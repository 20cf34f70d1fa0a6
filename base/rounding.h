// Division and rounding of unsigned numbers.
#pragma once

#include <cstdint>

namespace vc {

// Returns n / unit, rounded up.  `unit` must not be 0.
constexpr uint64_t divide_up(uint64_t n, uint64_t unit) {
  return n / unit + (n % unit != 0 ? 1 : 0);
}

// Returns the least multiple of `unit` that is not below `n`: it must be less than 2^64.
constexpr uint64_t round_up(uint64_t n, uint64_t unit) {
  return divide_up(n, unit) * unit;
}

// Returns the greatest multiple of `unit` that is not above `n`.
constexpr uint64_t round_down(uint64_t n, uint64_t unit) {
  return n / unit * unit;
}

}  // namespace vc
