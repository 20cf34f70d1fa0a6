// Whether a copy shares blocks with its source.
#pragma once

#include <cstdint>

namespace vc::copy {

// As --reflink of cp.
enum class Reflink : uint8_t {
  kAuto,    // where the filesystem can; other data is copied
  kAlways,  // all plain data, or the copy fails
  kNever,
};

}  // namespace vc::copy
