// NTFS that looks as if Windows was switched off without a shutdown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace vc::test {

// Reads `length` bytes of the partition at an offset.
using ReadPartition = std::function<std::string(uint64_t at, size_t length)>;

struct LogPages {
  uint64_t at = 0;    // offset on the partition, bytes
  std::string bytes;  // two restart pages that are not marked clean
};

// Needs a fresh NTFS with an empty log.  Throws std::runtime_error otherwise.
LogPages unclean_log(const ReadPartition& read);

}  // namespace vc::test
