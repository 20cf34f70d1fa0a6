// An NTFS that looks as though Windows was switched off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace vc::test {

// Reads `length` bytes of the partition at an offset.
using ReadPartition = std::function<std::string(uint64_t at, size_t length)>;

struct LogPages {
  uint64_t at = 0;    // where they belong on the partition, bytes
  std::string bytes;  // two restart pages that do not say that all is clean
};

// For a fresh NTFS, whose log is empty.  Throws std::runtime_error if it is none.
LogPages unclean_log(const ReadPartition& read);

}  // namespace vc::test
