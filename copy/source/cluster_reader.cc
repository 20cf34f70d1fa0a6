#include "copy/source/cluster_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "base/zero_bytes.h"

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

// Returns the length of a stream that may decode to zeros. A cluster of zeros compresses to very
// little, so a short stream is worth decoding to omit the cluster. Deflate, the less dense codec,
// stores at most 1032 bytes per byte of stream.
size_t may_be_zeros(uint64_t cluster_size) {
  return 64 + cluster_size / 512;
}

}  // namespace

ClusterReader::ClusterReader(const Options& options)
    : options_(options),
      // An L2 entry can count up to twice the sectors of a cluster.
      stream_(options.compression ? 2 * options.geometry.cluster_size() : 0),
      scratch_(options.compression ? options.geometry.cluster_size() : 0) {}

bool ClusterReader::can_pass_through(const qcow2::Disk& disk, const Extent& extent) const {
  if (!options_.compression || extent.kind != ExtentKind::kCompressed) return false;
  // Streams of the source may need a window of any size.
  if (options_.compression.window == qcow2::DeflateWindow::k4KiB) return false;
  const auto made = disk.layers()[extent.depth]->compression();
  const uint64_t cluster_size = options_.geometry.cluster_size();
  // Excludes a cluster that extends past the end of the disk: its stream may hold data of an
  // earlier, larger disk, which would reappear if the copy were enlarged.
  return made && made->type == *options_.compression.type && made->cluster_size == cluster_size &&
         options_.geometry.offset_in_cluster(extent.guest.value()) == 0 &&
         extent.length == cluster_size;
}

void ClusterReader::mark_compressed(const Extent& extent, Chunk& chunk) const {
  const uint64_t cluster_size = options_.geometry.cluster_size();
  const uint64_t at = extent.guest - options_.geometry.start_of(chunk.first);
  const uint64_t last = (at + extent.length - 1) / cluster_size;
  for (uint64_t i = at / cluster_size; i <= last; ++i) chunk.clusters[i].was_compressed = true;
}

// Copies the stream to the cluster, unless it decodes to zeros or is not shorter than the cluster.
Result<void> ClusterReader::pass_through(const qcow2::Disk& disk, const Extent& extent,
                                         Chunk& chunk) {
  const uint64_t cluster_size = options_.geometry.cluster_size();
  const auto where = [&] {
    return fmt::format("{}: compressed cluster of guest offset {:#x} at {:#x}",
                       disk.layers()[extent.depth]->name(), extent.guest.value(),
                       extent.host.value());
  };
  ASSIGN_OR_RETURN(const size_t got, disk.read_stream(extent, stream_.span()));
  // The file may end inside the last sector; the missing part reads as zeros.
  std::memset(stream_.data() + got, 0, extent.compressed_length - got);
  const auto stream = std::span<const std::byte>(stream_.span()).first(extent.compressed_length);
  const auto type = *options_.compression.type;
  auto length = qcow2::stream_length(type, stream, decoder_, scratch_.span());
  if (!length) return fail(std::move(length).error().with_context(where()));

  const size_t index = (extent.guest - options_.geometry.start_of(chunk.first)) / cluster_size;
  Cluster& cluster = chunk.clusters[index];
  if (*length < may_be_zeros(cluster_size) || *length >= cluster_size) {
    auto decoded = decoder_.decode(type, stream, chunk.cluster_bytes(index, cluster_size));
    if (!decoded) return fail(std::move(decoded).error().with_context(where()));
    if (*length >= cluster_size) return {};
    if (is_zero(chunk.cluster_bytes(index, cluster_size))) return {};
  }
  // Each cluster's stream has a place of its own in `packed`; ClusterWorker::encode() packs the
  // streams.
  std::memcpy(chunk.packed.data() + index * cluster_size, stream.data(), *length);
  cluster.kind = Cluster::Kind::kCompressed;
  cluster.passed_through = true;
  cluster.packed_length = static_cast<uint32_t>(*length);
  return {};
}

// Reads the parts of an extent that are not in cloned clusters.
Result<void> ClusterReader::read_extent(const qcow2::Disk& disk, const Extent& extent,
                                        Chunk& chunk) const {
  const uint64_t cluster_size = options_.geometry.cluster_size();
  const GuestOffset start = options_.geometry.start_of(chunk.first);
  const uint64_t end = extent.end() - start;
  const auto is_cloned = [&](uint64_t at) {
    return chunk.clusters[at / cluster_size].clone == Chunk::Clone::kYes;
  };
  for (uint64_t at = extent.guest - start; at < end;) {
    uint64_t stop = at;
    do stop = std::min(end, (stop / cluster_size + 1) * cluster_size);
    while (stop < end && is_cloned(stop) == is_cloned(at));
    if (!is_cloned(at))
      RETURN_IF_ERROR(
          disk.read_extent(extent, start + at, chunk.bytes.span().subspan(at, stop - at)));
    at = stop;
  }
  return {};
}

Result<void> ClusterReader::read(const qcow2::Disk& disk, CloneFinder::Files files, bool salvage,
                                 Chunk& chunk) {
  if (options_.cloning)
    RETURN_IF_ERROR(CloneFinder(*options_.cloning, options_.geometry).find(files, chunk));
  for (const Extent& extent : chunk.extents) {
    if (extent.reads_as_zero()) continue;
    if (extent.kind == ExtentKind::kCompressed) mark_compressed(extent, chunk);
    if (can_pass_through(disk, extent)) {
      auto passed = pass_through(disk, extent, chunk);
      if (passed) continue;
      if (!salvage) return passed;
    }
    RETURN_IF_ERROR(read_extent(disk, extent, chunk));
  }
  return {};
}

}  // namespace vc::copy
