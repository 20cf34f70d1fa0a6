// The size of a file, or of several files together.
#pragma once

#include <cstdint>

namespace vc {

struct FileSize {
  uint64_t length = 0;  // bytes
  uint64_t blocks = 0;  // allocated by the filesystem, bytes
};

}  // namespace vc
