#include "inspect/qemu_measure.h"

#include <algorithm>

#include "base/rounding.h"
#include "inspect/disk_map.h"
#include "qcow2/format/bitmap_directory.h"

namespace vc::inspect {

namespace {

// size of a bitmap's directory entry without its name; bytes
constexpr uint64_t kDirectoryEntry = 24;
constexpr uint64_t kEntry = 8;  // bytes of an L1, refcount table or plain L2 entry

// Returns the clusters of refcount blocks and refcount table, for `clusters` other clusters and
// themselves.
uint64_t refcount_clusters(uint64_t clusters, uint64_t cluster_size, unsigned refcount_order) {
  const uint64_t per_block = cluster_size * 8 >> refcount_order;
  const uint64_t per_table_cluster = cluster_size / kEntry;
  uint64_t own = 0;
  while (true) {
    const uint64_t blocks = divide_up(clusters + own, per_block);
    const uint64_t next = blocks + divide_up(blocks, per_table_cluster);
    if (next == own) return own;
    own = next;
  }
}

}  // namespace

copy::ImageOptions with_qemu_defaults(copy::ImageOptions options) {
  if (!options.version) options.version = 3;
  if (!options.cluster_bits) options.cluster_bits = 16;
  if (!options.refcount_order) options.refcount_order = 4;
  if (!options.extended_l2) options.extended_l2 = false;
  if (!options.lazy_refcounts) options.lazy_refcounts = false;
  return options;
}

Result<uint64_t> qemu_data_clusters(copy::Source& source, const qcow2::Geometry& geometry,
                                    const Stop& stop) {
  uint64_t count = 0;
  uint64_t next = 0;  // the first cluster not yet counted
  DiskMap map(source);
  const auto on_extent = [&](const qcow2::Extent&) -> Result<void> {
    if (stop.requested()) return fail(Error::cancelled());
    return {};
  };
  const auto on_entry = [&](const MapEntry& entry) -> Result<void> {
    if (!entry.data || entry.zero) return {};
    const uint64_t first = std::max(next, entry.start / geometry.cluster_size());
    const uint64_t end = geometry.clusters_for(entry.start + entry.length);
    if (first >= end) return {};
    count += end - first;
    next = end;
    return {};
  };
  RETURN_IF_ERROR(map.walk(0, source.size(), on_extent, on_entry));
  return count;
}

QemuMeasure qemu_measure(const qcow2::BuildOptions& build, copy::Preallocation preallocation,
                         uint64_t data_clusters) {
  const qcow2::Geometry geometry = build.geometry();
  const uint64_t cluster_size = geometry.cluster_size();
  const uint64_t size = round_up(build.size, cluster_size);
  const uint64_t entry = geometry.l2_entry_size();
  const uint64_t l2_entries = round_up(size / cluster_size, cluster_size / entry);
  const uint64_t l1_entries = round_up(l2_entries * entry / cluster_size, cluster_size / kEntry);
  uint64_t metadata = cluster_size + l2_entries * entry + l1_entries * kEntry;
  metadata +=
      refcount_clusters((metadata + size) / cluster_size, cluster_size, build.refcount_order) *
      cluster_size;
  QemuMeasure measure;
  measure.fully_allocated = metadata + size;
  uint64_t data = data_clusters * cluster_size;
  if (!build.backing_file.empty() || preallocation == copy::Preallocation::kFalloc ||
      preallocation == copy::Preallocation::kFull) {
    data = size;
  }
  measure.required = metadata + data;
  return measure;
}

QemuMeasure qemu_measure_raw(uint64_t size) {
  const uint64_t sectors = round_up(size, qcow2::Geometry::kSectorSize);
  return {sectors, sectors};
}

Result<std::optional<uint64_t>> bitmaps_size(const Storage& storage, const qcow2::Header& header,
                                             uint64_t disk_size, uint64_t cluster_size) {
  if (header.version < 3) return std::optional<uint64_t>{};
  ASSIGN_OR_RETURN(const auto directory,
                   with_context(qcow2::read_bitmap_directory(storage, header), storage.name()));
  uint64_t sum = 0;
  uint64_t entries = 0;
  for (const qcow2::Bitmap& bitmap : directory.bitmaps) {
    const uint64_t bits = round_up(disk_size, bitmap.granularity()) / bitmap.granularity();
    const uint64_t clusters = round_up((bits + 7) / 8, cluster_size) / cluster_size;
    sum += clusters * cluster_size + round_up(clusters * kEntry, cluster_size);
    entries += round_up(kDirectoryEntry + bitmap.name.size(), 8);
  }
  return std::optional(sum + round_up(entries, cluster_size));
}

}  // namespace vc::inspect
