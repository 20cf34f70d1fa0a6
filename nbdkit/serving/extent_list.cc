#include "nbdkit/serving/extent_list.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <algorithm>

#include "qcow2/read/file_holes.h"

namespace vc::nbdkit {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

// Extents per map() call, and maximum extents per request (each compressed cluster is one): a
// client asks again for the rest.
constexpr size_t kBatch = 256;
constexpr size_t kMost = 32768;
// Maximum map entries, of all layers, that are read for one request. They may all form one extent:
// 4 GiB of 512-byte clusters have 8 million entries in each layer.
constexpr uint64_t kMostEntries = uint64_t{1} << 20;

// Maximum hole lookups in files per request. A map of preallocated clusters may need one for each
// cluster, and a filter sends each over a network.
constexpr uint64_t kMostQuestions = 1024;

// Returns the bytes of the disk that have at most that many map entries, in all layers together.
uint64_t longest_look(const qcow2::Disk& disk) {
  uint64_t smallest = uint64_t{64} << 10;
  for (const auto& layer : disk.layers())
    if (const auto compression = layer->compression())
      smallest = std::min(smallest, compression->cluster_size);
  return std::max<uint64_t>(kMostEntries / disk.layers().size(), 1) * smallest;
}

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

Result<std::vector<NbdExtent>> list_extents(const qcow2::Disk& disk, uint64_t offset,
                                            uint64_t count, bool one) {
  std::vector<NbdExtent> list;
  std::vector<Extent> batch;
  const uint64_t end = offset + std::min(count, longest_look(disk));
  // Mapping past the first extent would be wasted work.
  const size_t most = one ? 1 : kBatch;
  size_t seen = 0;
  qcow2::FileHoles holes;
  for (uint64_t at = offset; at < end && seen < kMost && holes.questions() < kMostQuestions;
       at = batch.back().end().value()) {
    batch.clear();
    RETURN_IF_ERROR(disk.map(GuestOffset(at), end - at, batch, most));
    RETURN_IF_ERROR(holes.split(disk, batch, 0, 2 * most));
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

}  // namespace vc::nbdkit
