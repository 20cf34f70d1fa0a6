#include "qcow2/read/disk.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace vc::qcow2 {

namespace {

// The chain is resolved in windows of this many bytes.  Otherwise, a hole of terabytes in the top
// would be searched again for each small extent of the image below.
constexpr uint64_t kMapWindow = uint64_t{1} << 30;
// After a window with at most this many pieces, the window size doubles, so that an empty disk of
// exabytes is mapped quickly, not in billions of windows.
constexpr unsigned kFewPieces = 4;

using Layers = std::vector<std::shared_ptr<Layer>>;

// Calls `visit (extent) -> Result<bool>` for the extents of [at, end) from layer `depth` down, in
// order, until it returns false.  Returns false in that case.  Uses a stack of ends rather than
// recursion, since a chain may be long.
template <typename Visit>
Result<bool> resolve(const Layers& layers, GuestOffset at, GuestOffset end, Visit visit) {
  // ends[d]: the end of the range to query in layer d before a return to d - 1. above[d]: the
  // extent of layer d - 1 for that range.
  std::vector<GuestOffset> ends{end};
  std::vector<Extent> above(1);
  while (!ends.empty()) {
    if (at == ends.back()) {
      ends.pop_back();
      above.pop_back();
      continue;
    }
    const size_t depth = ends.size() - 1;
    const Layer& layer = *layers[depth];
    Extent extent;
    if (at.value() >= layer.size()) {
      // A backing file may be smaller than the overlay. Past its end, ranges are unallocated and
      // belong to the layer above, as in QEMU.
      extent.guest = at;
      extent.length = ends.back() - at;
      extent.depth = static_cast<uint32_t>(depth - 1);
      extent.preallocated = above.back().preallocated;
      if (extent.preallocated) extent.host = above.back().host + (at - above.back().guest);
    } else {
      const uint64_t limit = std::min(ends.back() - at, layer.size() - at.value());
      ASSIGN_OR_RETURN(extent, layer.map(at, limit));
      if (extent.kind == ExtentKind::kUnallocated && depth + 1 < layers.size()) {
        ends.push_back(extent.end());
        above.push_back(extent);
        continue;
      }
      extent.depth = static_cast<uint32_t>(depth);
    }
    ASSIGN_OR_RETURN(const bool go_on, visit(extent));
    if (!go_on) return false;
    at = extent.end();
  }
  return true;
}

}  // namespace

Disk::Disk(std::vector<std::shared_ptr<Layer>> layers) : layers_(std::move(layers)) {}

Result<void> Disk::map(GuestOffset at, uint64_t length, std::vector<Extent>& out,
                       size_t max_extents) const {
  const GuestOffset end = at + length;
  const size_t first = out.size();
  uint64_t window = kMapWindow;
  while (at < end) {
    const GuestOffset stop = at + std::min(end - at, window);
    uint64_t pieces = 0;
    ASSIGN_OR_RETURN(const bool go_on,
                     resolve(layers_, at, stop, [&](const Extent& extent) -> Result<bool> {
                       ++pieces;
                       if (out.size() > first && join(out.back(), extent)) return true;
                       if (out.size() - first == max_extents) return false;
                       out.push_back(extent);
                       return true;
                     }));
    if (!go_on) return {};
    window = pieces > kFewPieces ? kMapWindow : std::min(window * 2, uint64_t{1} << 62);
    at = stop;
  }
  return {};
}

Result<void> Disk::read(GuestOffset at, std::span<std::byte> to) const {
  auto done = resolve(layers_, at, at + to.size(), [&](const Extent& extent) -> Result<bool> {
    RETURN_IF_ERROR(
        read_extent(extent, extent.guest, to.subspan(extent.guest - at, extent.length)));
    return true;
  });
  if (!done) return fail(std::move(done).error());
  return {};
}

Result<void> Disk::read_extent(const Extent& extent, GuestOffset at,
                               std::span<std::byte> to) const {
  if (extent.reads_as_zero()) {
    std::memset(to.data(), 0, to.size());
    return {};
  }
  return layers_[extent.depth]->read(extent, at, to);
}

Result<size_t> Disk::read_stream(const Extent& extent, std::span<std::byte> to) const {
  return layers_[extent.depth]->read_stream(extent, to);
}

}  // namespace vc::qcow2
