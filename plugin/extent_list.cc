#include "plugin/extent_list.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

namespace plugin {

using qcow2::Extent;
using qcow2::ExtentKind;
using qcow2::GuestOffset;

namespace {

// Extents of the map (each compressed cluster is one) that are looked at in one go, and at most for
// one request: a client asks again for the rest.
constexpr size_t kBatch = 256;
constexpr size_t kMost = 32768;

uint32_t type_of(const Extent& extent) {
  switch (extent.kind) {
    case ExtentKind::kData:
    case ExtentKind::kCompressed:
      return 0;
    case ExtentKind::kZero:
      return extent.preallocated ? NBDKIT_EXTENT_ZERO : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
    case ExtentKind::kUnallocated:
      break;
  }
  return NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
}

}  // namespace

qcow2::Result<std::vector<NbdExtent>> list_extents(const qcow2::Disk& disk, uint64_t offset,
                                                   uint64_t count, bool one) {
  std::vector<NbdExtent> list;
  std::vector<Extent> batch;
  const uint64_t end = offset + count;
  size_t seen = 0;
  for (uint64_t at = offset; at < end && seen < kMost; at = batch.back().end().value()) {
    batch.clear();
    RETURN_IF_ERROR(disk.map(GuestOffset(at), end - at, batch, kBatch));
    seen += batch.size();
    for (const Extent& extent : batch) {
      const uint32_t type = type_of(extent);
      if (!list.empty() && list.back().type == type) {
        list.back().length += extent.length;
        continue;
      }
      if (one && !list.empty()) return list;
      list.push_back({extent.guest.value(), extent.length, type});
    }
  }
  return list;
}

}  // namespace plugin
