// The page cache of a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace vc {

struct CachedPages {
  uint64_t cached = 0;   // bytes
  uint64_t length = 0;   // of the file, bytes
  bool sampled = false;  // the file is long, and only samples of it were checked
};

// Returns nullopt if the system does not tell (a block device, a file of another user).
std::optional<CachedPages> cached_pages(const std::string& path);

// Flushes the file and asks the system to drop its cached pages.  Pages in use stay; cached_pages
// () counts them.
Result<void> drop_pages(const std::string& path);

}  // namespace vc
