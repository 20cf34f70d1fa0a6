#include "qcow2/relocate/stored_cluster.h"

#include <algorithm>

namespace vc::qcow2 {

namespace {

// The bitmap of an extended entry, of which all subclusters read as zeros.
constexpr uint64_t kZeroBitmap = uint64_t{UINT32_MAX} << 32;

}  // namespace

StoredCluster take_first(const Geometry& geometry, const PointerWindow& window,
                         std::span<const ClusterPointer>& pointers) {
  const ClusterPointer& first = pointers.front();
  const HostOffset at = window.target(first);
  const bool compressed = first.compressed(true);
  const auto end = std::ranges::find_if_not(pointers, [&](const ClusterPointer& it) {
    return window.target(it) == at &&
           (compressed ? ((it.word ^ first.word) & ~kEntryCopied) == 0 : !it.compressed(true));
  });
  StoredCluster cluster{at, geometry.cluster_size(), compressed, {pointers.begin(), end}, 0};
  if (compressed)
    cluster.length =
        CompressedDescriptor::decode(first.word, geometry.cluster_bits()).readable_bytes();
  for (const ClusterPointer& it : cluster.pointers) cluster.times += it.times;
  pointers = {end, pointers.end()};
  return cluster;
}

L2Entry zero_entry(const Header& header) {
  if (header.geometry().extended_l2()) return {0, kZeroBitmap};
  return {header.version >= 3 ? kEntryZero : 0, 0};
}

}  // namespace vc::qcow2
