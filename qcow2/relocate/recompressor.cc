#include "qcow2/relocate/recompressor.h"

#include <algorithm>
#include <array>

#include "base/byte_order.h"
#include "base/zero_bytes.h"
#include "qcow2/format/l2_entry.h"
#include "storage/padded_read.h"

namespace vc::qcow2 {

Recompressor::Recompressor(const Image& image, Encoder encoder)
    : image_(image),
      encoder_(std::move(encoder)),
      cluster_(image.geometry().cluster_size()),
      stream_(image.geometry().cluster_size() - 1) {}

Result<Recompressor> Recompressor::create(const Image& image, const Compression& how) {
  ASSIGN_OR_RETURN(Encoder encoder, Encoder::create(how));
  return Recompressor(image, std::move(encoder));
}

Result<void> Recompressor::decide(StoredCluster& cluster) {
  return cluster.compressed ? decide_stream(cluster) : decide_plain(cluster);
}

Result<void> Recompressor::decide_stream(StoredCluster& cluster) {
  cluster.fate = StoredCluster::Fate::kStays;
  std::vector<std::byte> stream(cluster.length);
  // The file may end inside the last sector.
  RETURN_IF_ERROR(read_padded(image_.storage(), cluster.at, stream));
  const auto length = stream_length(image_.header().compression_type, stream, decoder_, cluster_);
  if (!length || *length == 0 || *length > cluster_.size()) return {};
  stream.resize(*length);
  cluster.stream = std::move(stream);
  cluster.fate = StoredCluster::Fate::kStream;
  return {};
}

// Returns the bitmap of all extended entries that point to the cluster, or nullopt if they differ.
Result<std::optional<uint64_t>> Recompressor::read_bitmap(const StoredCluster& cluster) const {
  std::optional<uint64_t> common;
  for (const ClusterPointer& it : cluster.pointers) {
    std::array<std::byte, 8> bytes;
    RETURN_IF_ERROR(read_fully(image_.storage(), it.at + 8, bytes));
    const uint64_t bitmap = load_be64(bytes.data());
    if (common && *common != bitmap) return std::optional<uint64_t>();
    common = bitmap;
  }
  return common;
}

// Clears what reads as zeros in cluster_.  Returns false if the entries read different data, or
// data of a backing file: such a cluster cannot be compressed.
Result<bool> Recompressor::clear_zeros(StoredCluster& cluster) {
  const Geometry& geometry = image_.geometry();
  if (!geometry.extended_l2()) {
    if (std::ranges::all_of(cluster.pointers,
                            [](const ClusterPointer& it) { return (it.word & kEntryZero) != 0; }))
      std::ranges::fill(cluster_, std::byte{0});
    return true;
  }
  ASSIGN_OR_RETURN(const auto bitmap, read_bitmap(cluster));
  if (!bitmap) return false;
  cluster.bitmap = *bitmap;
  const L2Entry entry{0, *bitmap};
  const bool all = (entry.allocated_mask() | entry.zero_mask()) == UINT32_MAX;
  if (!all && !image_.header().backing_file.empty()) return false;
  for (unsigned i = 0; i < Geometry::kSubclusters; ++i)
    if ((entry.allocated_mask() >> i & 1) == 0)
      std::ranges::fill(
          std::span(cluster_).subspan(i * geometry.subcluster_size(), geometry.subcluster_size()),
          std::byte{0});
  return true;
}

Result<void> Recompressor::decide_plain(StoredCluster& cluster) {
  const Header& header = image_.header();
  RETURN_IF_ERROR(read_padded(image_.storage(), cluster.at, cluster_));
  cluster.fate = StoredCluster::Fate::kPlain;
  ASSIGN_OR_RETURN(const bool uniform, clear_zeros(cluster));
  if (!uniform) return {};
  // Version 2 has no entries that read as zeros without data, if there is a backing file.
  if ((header.version >= 3 || header.backing_file.empty()) && is_zero(cluster_)) {
    cluster.fate = StoredCluster::Fate::kZero;
    return {};
  }
  const size_t length = encoder_.encode(cluster_, stream_);
  if (length == 0) return {};
  cluster.stream.assign(stream_.begin(), stream_.begin() + static_cast<ptrdiff_t>(length));
  cluster.fate = StoredCluster::Fate::kStream;
  return {};
}

}  // namespace vc::qcow2
