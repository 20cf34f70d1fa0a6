#include "copy/space_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rounding.h"
#include "base/zero_bytes.h"
#include "copy/snapshot_copy.h"

namespace vc::copy {

using qcow2::Extent;

namespace {

constexpr uint64_t kSamples = 256;
// What the filesystem itself stores for each cloned cluster, at most. XFS took 75 bytes where no
// two clusters were adjacent.
constexpr uint64_t kCloneBytes = 128;
// Safety margin of estimates from samples.
constexpr uint64_t kMarginPercent = 10;

std::string megabytes(uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

Result<void> for_each_live_run(Source& source, const qcow2::Geometry& geometry, const Stop& stop,
                               const std::function<void(ClusterIndex, uint64_t)>& visit) {
  std::vector<Extent> extents;
  GuestOffset at;
  ClusterIndex next;  // the first cluster not yet visited
  while (at.value() < source.size()) {
    if (stop.requested()) return fail(Error::cancelled());
    extents.clear();
    RETURN_IF_ERROR(source.map(at, source.size() - at.value(), extents));
    for (const Extent& extent : extents) {
      if (extent.reads_as_zero()) continue;
      const ClusterIndex first = std::max(next, geometry.cluster_of(extent.guest));
      const ClusterIndex end(geometry.clusters_for(extent.end().value()));
      if (first >= end) continue;
      visit(first, end - first);
      next = end;
    }
    at = extents.back().end();
  }
  return {};
}

Result<uint64_t> count_live_clusters(Source& source, const qcow2::Geometry& geometry,
                                     const Stop& stop) {
  uint64_t live = 0;
  RETURN_IF_ERROR(for_each_live_run(source, geometry, stop,
                                    [&](ClusterIndex, uint64_t count) { live += count; }));
  return live;
}

namespace {

// Returns the maximum number of destination clusters that are not cloned.
Result<uint64_t> count_copied_clusters(Source& source, const ClusterWorker::Options& worker,
                                       const Stop& stop) {
  const Cloning& cloning = *worker.cloning;
  const uint64_t cluster_size = worker.geometry.cluster_size();
  const uint64_t block = cloning.block();
  const auto is_clonable = [&](const Extent& extent) {
    const FileStorage* const file =
        extent.kind == qcow2::ExtentKind::kData ? source.plain_file(extent.depth) : nullptr;
    return file && cloning.can_clone(*file) && cluster_size % block == 0 &&
           extent.guest.value() % block == 0 && extent.host.value() % block == 0 &&
           extent.length % block == 0;
  };
  uint64_t copied = 0;
  std::vector<Extent> extents;
  ClusterIndex next;  // the first cluster that is not counted yet
  for (GuestOffset at; at.value() < source.size(); at = extents.back().end()) {
    if (stop.requested()) return fail(Error::cancelled());
    extents.clear();
    RETURN_IF_ERROR(source.map(at, source.size() - at.value(), extents));
    for (const Extent& extent : extents) {
      if (extent.reads_as_zero() || is_clonable(extent)) continue;
      // A group is cloned or copied as a whole.
      const uint64_t group = cloning.group();
      const ClusterIndex first(round_down(extent.guest.value(), group) / cluster_size);
      const ClusterIndex end(round_up(extent.end().value(), group) / cluster_size);
      if (end <= next) continue;
      copied += end - std::max(first, next);
      next = end;
    }
  }
  return copied;
}

}  // namespace

Result<uint64_t> bytes_with_clones(Source& source, uint64_t live,
                                   const ClusterWorker::Options& worker, const Stop& stop) {
  ASSIGN_OR_RETURN(const uint64_t copied, count_copied_clusters(source, worker, stop));
  return (copied << worker.geometry.cluster_bits()) + (live - std::min(live, copied)) * kCloneBytes;
}

Result<uint64_t> estimate_bytes(Source& source, uint64_t live, const ClusterWorker::Options& worker,
                                const Stop& stop) {
  const qcow2::Geometry& geometry = worker.geometry;
  const uint64_t cluster_size = geometry.cluster_size();
  // Samples are spread evenly over the live clusters.
  const uint64_t samples = std::min(live, kSamples);
  std::vector<ClusterIndex> chosen;
  uint64_t passed = 0;
  RETURN_IF_ERROR(
      for_each_live_run(source, geometry, stop, [&](ClusterIndex first, uint64_t count) {
        while (chosen.size() < samples) {
          const uint64_t wanted = chosen.size() * live / samples;
          if (wanted >= passed + count) break;
          chosen.push_back(first + (wanted - passed));
        }
        passed += count;
      }));
  if (chosen.empty()) return uint64_t{0};

  std::optional<qcow2::Encoder> encoder;
  if (worker.compression) {
    ASSIGN_OR_RETURN(encoder, qcow2::Encoder::create(worker.compression));
  }
  AlignedBuffer cluster(cluster_size);
  AlignedBuffer stream(cluster_size);
  std::vector<Extent> extents;
  uint64_t bytes = 0;
  for (const ClusterIndex it : chosen) {
    if (stop.requested()) return fail(Error::cancelled());
    const GuestOffset at = geometry.start_of(it);
    const auto part = cluster.span().first(std::min(cluster_size, source.size() - at.value()));
    std::fill(cluster.span().begin(), cluster.span().end(), std::byte{0});
    RETURN_IF_ERROR(source.read(at, part));
    if (is_zero(cluster.span())) continue;
    size_t length = 0;
    if (encoder && worker.keep_plain) {
      extents.clear();
      RETURN_IF_ERROR(source.map(at, part.size(), extents));
    }
    const bool compresses =
        encoder && (!worker.keep_plain ||
                    std::any_of(extents.begin(), extents.end(), [](const Extent& extent) {
                      return extent.kind == qcow2::ExtentKind::kCompressed;
                    }));
    if (compresses) length = encoder->encode(cluster.span(), stream.span().first(cluster_size - 1));
    bytes += length == 0 ? cluster_size : length;
  }
  return static_cast<uint64_t>(static_cast<double>(bytes) / static_cast<double>(chosen.size()) *
                               static_cast<double>(live));
}

namespace {

// `metadata`: returns the bytes of metadata for a number of clusters.
Result<void> check(Source& source, const ClusterWorker::Options& worker, const OutputFile& out,
                   const Stop& stop, const std::function<uint64_t(uint64_t)>& metadata,
                   SnapshotCopy* snapshots = nullptr) {
  ASSIGN_OR_RETURN(const uint64_t all_space, out.free_space());
  uint64_t others = snapshots ? snapshots->largest_size() : 0;
  uint64_t space = all_space - std::min(all_space, others);
  // If the whole disk fits, its map is not needed.
  const uint64_t clusters = worker.geometry.clusters_for(source.size());
  const uint64_t all_metadata = metadata(clusters);
  if (all_metadata <= space && clusters <= (space - all_metadata) >> worker.geometry.cluster_bits())
    return {};

  if (snapshots) {
    ASSIGN_OR_RETURN(others, snapshots->most_bytes(stop));
    space = all_space - std::min(all_space, others);
  }
  ASSIGN_OR_RETURN(const uint64_t live, count_live_clusters(source, worker.geometry, stop));
  if ((live << worker.geometry.cluster_bits()) + metadata(live) <= space) return {};

  if (worker.cloning) {
    ASSIGN_OR_RETURN(uint64_t most, bytes_with_clones(source, live, worker, stop));
    if (snapshots) {
      ASSIGN_OR_RETURN(const uint64_t more, snapshots->bytes_with_clones(stop));
      most += more;
    }
    if (most + metadata(live) <= all_space) return {};
  }
  ASSIGN_OR_RETURN(uint64_t bytes, estimate_bytes(source, live, worker, stop));
  if (snapshots) {
    ASSIGN_OR_RETURN(others, snapshots->estimated_bytes(stop));
    bytes += others;
  }
  const uint64_t needed = bytes + bytes / 100 * kMarginPercent + metadata(live);
  if (needed <= all_space) return {};
  return fail(Error::protocol(
      ENOSPC, fmt::format("{}: the copy needs about {}, but the filesystem of {} has only {} free",
                          out.name(), megabytes(needed), out.folder(), megabytes(all_space))));
}

}  // namespace

Result<void> check_space(Source& source, const qcow2::BuildOptions& build,
                         const ClusterWorker::Options& worker, const OutputFile& out,
                         const Stop& stop, SnapshotCopy* snapshots) {
  return check(
      source, worker, out, stop,
      [&](uint64_t clusters) { return qcow2::Builder::metadata_bytes(build, clusters); },
      snapshots);
}

Result<void> check_raw_space(Source& source, const ClusterWorker::Options& worker,
                             const OutputFile& out, const Stop& stop) {
  return check(source, worker, out, stop, [](uint64_t) { return uint64_t{0}; });
}

}  // namespace vc::copy
