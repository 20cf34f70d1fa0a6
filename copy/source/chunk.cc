#include "copy/source/chunk.h"

#include <cstring>

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;

void prepare(Chunk& chunk, const qcow2::Geometry& geometry) {
  const GuestOffset begin = geometry.start_of(chunk.first);
  const uint64_t cluster_size = geometry.cluster_size();
  const auto kind_at = [&](uint64_t offset) -> Chunk::Cluster::Kind& {
    return chunk.clusters[offset >> geometry.cluster_bits()].kind;
  };
  for (const Extent& extent : chunk.extents) {
    if (extent.kind == ExtentKind::kUnallocated) continue;
    const uint64_t last = (extent.end() - begin) - 1;
    for (uint64_t at = extent.guest - begin; at <= last;
         at = (at / cluster_size + 1) * cluster_size) {
      Chunk::Cluster::Kind& kind = kind_at(at);
      if (!extent.reads_as_zero())
        kind = Chunk::Cluster::Kind::kData;
      else if (kind == Chunk::Cluster::Kind::kHole)
        kind = Chunk::Cluster::Kind::kSaidZero;
    }
  }
  const auto clear = [&](uint64_t from, uint64_t to) {
    while (from < to) {
      const uint64_t stop = std::min(to, (from / cluster_size + 1) * cluster_size);
      if (kind_at(from) == Chunk::Cluster::Kind::kData)
        std::memset(chunk.bytes.data() + from, 0, stop - from);
      from = stop;
    }
  };
  for (const Extent& extent : chunk.extents)
    if (extent.reads_as_zero()) clear(extent.guest - begin, extent.end() - begin);
  // The disk may end inside its last cluster.
  clear(chunk.end() - begin, chunk.clusters.size() * cluster_size);
}

}  // namespace vc::copy
