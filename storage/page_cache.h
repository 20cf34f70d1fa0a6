// What the system has of a file in its memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace bench {

struct CachedPages {
  uint64_t cached = 0;   // bytes
  uint64_t length = 0;   // of the file, bytes
  bool sampled = false;  // the file is long, and only parts of it were looked at
};

// Nothing: the system does not tell (a block device, somebody else's file).
std::optional<CachedPages> cached_pages(const std::string& path);

// Asks the system to forget what it has of a file, once it is on the disk.  Pages that somebody
// uses at the moment stay: cached_pages () tells.
qcow2::Result<void> drop_pages(const std::string& path);

}  // namespace bench
