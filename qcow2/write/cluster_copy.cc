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

Result<void> copy_cluster(Storage& storage, HostOffset from, HostOffset to, uint64_t cluster_size) {
  std::vector<std::byte> bytes(cluster_size);
  // The file may end inside its last cluster: the missing part reads as zeros.
  RETURN_IF_ERROR(storage.read(from, bytes));
  for (uint64_t at = 0; at < bytes.size();) {
    const uint64_t piece = std::min<uint64_t>(kHole, bytes.size());
    const auto zero = [&](uint64_t begin) {
      return is_zero(std::span(bytes).subspan(begin, piece));
    };
    const bool hole = zero(at);
    uint64_t end = at + piece;
    while (end < bytes.size() && zero(end) == hole) end += piece;
    if (hole)
      RETURN_IF_ERROR(storage.write_zeroes(to + at, end - at));
    else
      RETURN_IF_ERROR(storage.write(to + at, std::span(bytes).subspan(at, end - at)));
    at = end;
  }
  return {};
}

}  // namespace vc::qcow2
