// Files that a guest creates again, or whose contents it does not need.
#pragma once

#include <cstdint>
#include <string>

#include "guest/reading/ranges.h"

namespace vc::guest {

// Kinds of files to find.
struct FileKinds {
  bool pagefile = false;   // of Windows: pagefile.sys
  bool swapfile = false;   // of Windows: swapfile.sys
  bool hiberfile = false;  // of Windows: hiberfil.sys
  bool swap = false;       // of Linux: swap files
};

struct FoundFile {
  std::string path;
  uint64_t size = 0;  // bytes
  Ranges contents;    // bytes of the volume that may read as zeros from now on
};

}  // namespace vc::guest
