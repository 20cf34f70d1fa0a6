#include "qcow2/write/cluster_copy.h"

#include <algorithm>
#include <span>
#include <vector>

#include "base/zero_bytes.h"

namespace vc::qcow2 {

namespace {

// Zeros of this size and alignment become holes in the file.
constexpr uint64_t kHole = 4096;

}  // namespace

Result<void> copy_cluster(Storage& storage, HostOffset from, HostOffset to, uint64_t length) {
  std::vector<std::byte> bytes(length);
  // The file may end inside its last cluster: the missing part reads as zeros.
  RETURN_IF_ERROR(storage.read(from, bytes));
  const auto piece = [&](uint64_t begin) {
    return std::span(bytes).subspan(begin, std::min(kHole, length - begin));
  };
  for (uint64_t at = 0; at < length;) {
    const bool hole = is_zero(piece(at));
    uint64_t end = at + piece(at).size();
    while (end < length && is_zero(piece(end)) == hole) end += piece(end).size();
    if (hole)
      RETURN_IF_ERROR(storage.write_zeroes(to + at, end - at));
    else
      RETURN_IF_ERROR(storage.write(to + at, std::span(bytes).subspan(at, end - at)));
    at = end;
  }
  return {};
}

}  // namespace vc::qcow2
