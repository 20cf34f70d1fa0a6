#include "inspect/disk_map.h"

#include <algorithm>
#include <string_view>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/format/format_probe.h"
#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"
#include "qcow2/read/image.h"
#include "qcow2/read/layer.h"

namespace vc::inspect {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

const qcow2::Image* image_at(const copy::Source& source, uint32_t depth) {
  const qcow2::Layer* const layer = source.layer(depth);
  return layer ? layer->qcow2_image() : nullptr;
}

bool is_encrypted(const copy::Source& source, uint32_t depth) {
  const qcow2::Layer* const layer = source.layer(depth);
  if (!layer) return false;
  const qcow2::Image* const image = layer->qcow2_image();
  return image ? image->encryption() != nullptr
               : std::string_view(layer->format()) == to_string(qcow2::Format::kLuks);
}

// Returns true if at least `threshold` clusters of the file have a nonzero refcount.
Result<bool> counted(const qcow2::Image& image, uint64_t threshold) {
  const qcow2::Header& header = image.header();
  const qcow2::Geometry& geometry = image.geometry();
  const Storage& file = image.storage();
  ASSIGN_OR_RETURN(const uint64_t file_size, file.size());
  const uint64_t clusters = geometry.clusters_for(file_size);
  const uint64_t reach = qcow2::refcounts_per_block(header.cluster_bits, header.refcount_order);
  const uint64_t blocks =
      std::min((uint64_t{header.refcount_table_clusters} << header.cluster_bits) / 8,
               divide_up(clusters, reach));
  std::vector<std::byte> table(blocks * 8);
  ASSIGN_OR_RETURN(const size_t got, file.read(header.refcount_table, table));
  std::vector<std::byte> block(geometry.cluster_size());
  uint64_t count = 0;
  for (uint64_t i = 0; i < got / 8 && count < threshold; ++i) {
    const uint64_t at = load_be64(&table[i * 8]) & qcow2::kEntryOffsetMask;
    if (at == 0 || at >= file_size) continue;
    ASSIGN_OR_RETURN(const auto run, file.run_at(HostOffset(at), geometry.cluster_size()));
    if (!run.data && run.length >= geometry.cluster_size()) continue;
    ASSIGN_OR_RETURN(const size_t read, file.read(HostOffset(at), block));
    std::fill(block.begin() + static_cast<ptrdiff_t>(read), block.end(), std::byte{0});
    const uint64_t last = std::min(reach, clusters - i * reach);
    for (uint64_t n = 0; n < last; ++n)
      count += qcow2::get_refcount(block, n, header.refcount_order) != 0;
  }
  return count >= threshold;
}

}  // namespace

// QEMU checks the holes of the file only if clearly more clusters are in use than the file has
// blocks: by a tenth, or by two. For other images it relies on the image's own map.
Result<bool> DiskMap::hollow(uint32_t depth) {
  if (depth >= hollow_.size()) hollow_.resize(depth + 1);
  if (hollow_[depth]) return *hollow_[depth];
  hollow_[depth] = false;
  const qcow2::Image* const image = image_at(source_, depth);
  // What was never written to an encrypted image does not read as zeros.
  if (!image || image->header().has_data_file() || image->encryption()) return false;
  const auto files = source_.files();
  const auto file = std::find_if(files.begin(), files.end(),
                                 [&](const auto& it) { return it.get() == &image->storage(); });
  if (file == files.end() || (*file)->is_block_device()) return false;
  ASSIGN_OR_RETURN(const uint64_t blocks, (*file)->blocks());
  const uint64_t real = blocks / image->geometry().cluster_size();
  ASSIGN_OR_RETURN(hollow_[depth], counted(*image, std::max(real * 10 / 9, real + 2)));
  return *hollow_[depth];
}

const std::string& DiskMap::file_of(uint32_t depth) const {
  const qcow2::Layer* const layer = source_.layer(depth);
  if (!layer) return source_.name();
  const qcow2::Image* const image = layer->qcow2_image();
  return image ? image->data_storage().name() : layer->name();
}

Result<void> DiskMap::put(const MapEntry& entry, const OnEntry& on_entry) {
  if (pending_) {
    MapEntry& last = *pending_;
    if (last.depth == entry.depth && last.present == entry.present && last.zero == entry.zero &&
        last.data == entry.data && last.compressed == entry.compressed &&
        last.offset.has_value() == entry.offset.has_value() &&
        (!entry.offset || *last.offset + last.length == *entry.offset)) {
      last.length += entry.length;
      last.compressed_bytes += entry.compressed_bytes;
      return {};
    }
    RETURN_IF_ERROR(on_entry(last));
  }
  pending_ = entry;
  return {};
}

Result<void> DiskMap::add(const Extent& extent, const OnEntry& on_entry) {
  MapEntry entry;
  entry.start = extent.guest.value();
  entry.length = extent.length;
  entry.depth = extent.depth;
  entry.present = extent.kind != ExtentKind::kUnallocated;
  entry.zero = extent.reads_as_zero();
  entry.data = !entry.zero;
  entry.compressed = extent.kind == ExtentKind::kCompressed;
  if (entry.compressed) entry.compressed_bytes = extent.compressed_length;
  const qcow2::Image* const image = image_at(source_, extent.depth);
  // All of a raw file or server's disk has an offset.
  const bool raw = !image && entry.present;
  if (raw || extent.kind == ExtentKind::kData || extent.preallocated)
    entry.offset = extent.host.value();
  entry.encrypted = entry.offset && !entry.compressed && is_encrypted(source_, extent.depth);
  if (extent.kind != ExtentKind::kData || !image) return put(entry, on_entry);

  ASSIGN_OR_RETURN(const bool look, hollow(extent.depth));
  if (!look) return put(entry, on_entry);
  ASSIGN_OR_RETURN(const uint64_t file_size, image->storage().size());
  const uint64_t end = entry.start + extent.length;
  while (entry.start < end) {
    entry.length = end - entry.start;
    entry.zero = *entry.offset >= file_size;
    if (!entry.zero) {
      ASSIGN_OR_RETURN(const auto run,
                       image->storage().run_at(HostOffset(*entry.offset), entry.length));
      entry.zero = !run.data;
      entry.length = std::min(entry.length, run.length);
    }
    RETURN_IF_ERROR(put(entry, on_entry));
    entry.start += entry.length;
    *entry.offset += entry.length;
  }
  return {};
}

Result<void> DiskMap::walk(uint64_t start, uint64_t end, const OnExtent& on_extent,
                           const OnEntry& on_entry) {
  std::vector<Extent> extents;
  for (uint64_t at = start; at < end;) {
    extents.clear();
    RETURN_IF_ERROR(source_.map_stored(GuestOffset(at), end - at, extents));
    for (const Extent& it : extents) {
      if (on_extent) RETURN_IF_ERROR(on_extent(it));
      if (on_entry) RETURN_IF_ERROR(add(it, on_entry));
    }
    at = extents.back().end().value();
  }
  if (pending_) RETURN_IF_ERROR(on_entry(*pending_));
  pending_.reset();
  return {};
}

}  // namespace vc::inspect
