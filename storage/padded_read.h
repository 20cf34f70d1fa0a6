// Reads that may extend past the end of the file.
#pragma once

#include <algorithm>
#include <span>

#include "storage/storage.h"

namespace vc {

// Reads `to.size()` bytes.  Bytes past the end of the file read as zeros, as in QEMU.
inline Result<void> read_padded(const Storage& storage, HostOffset at, std::span<std::byte> to) {
  size_t got = 0;
  if (at.value() <= static_cast<uint64_t>(INT64_MAX) - to.size()) {
    ASSIGN_OR_RETURN(got, storage.read(at, to));
  }
  std::fill(to.begin() + static_cast<ptrdiff_t>(got), to.end(), std::byte{0});
  return {};
}

// Returns whether the range is completely a hole or past the end of the file.
inline bool is_hole(const Storage& storage, uint64_t file_size, HostOffset at, uint64_t length) {
  while (length > 0 && at.value() < file_size) {
    const auto run = storage.run_at(at, length);
    if (!run || run->data) return false;
    if (run->length >= length) return true;
    at += run->length;
    length -= run->length;
  }
  return true;
}

}  // namespace vc
