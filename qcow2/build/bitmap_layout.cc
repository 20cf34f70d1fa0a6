#include "qcow2/build/bitmap_layout.h"

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "base/zero_bytes.h"
#include "qcow2/bitmaps/bitmap_bits.h"
#include "qcow2/format/bitmap_directory.h"

namespace vc::qcow2 {

uint64_t BitmapLayout::most_clusters(const BuildOptions& options) {
  if (options.bitmaps.empty()) return 0;
  const Geometry geometry = options.geometry();
  uint64_t clusters = 0;
  uint64_t directory = 0;
  // Each refcount block in a table is one more cluster, and there is at most one per cluster.
  for (const NewBitmap& it : options.bitmaps) {
    const uint64_t data =
        Bitmap::clusters_for(options.rounded_size(), it.granularity_bits, options.cluster_bits);
    clusters += data + 2 * geometry.clusters_for(data * 8) + 2;
    directory += bitmap_entry_bytes(it.name);
  }
  return clusters + 2 * geometry.clusters_for(directory) + 2;
}

// Writes `count` bits, a cluster or less, from the byte `at` of a bitmap.  Returns the entry of its
// table.
Result<uint64_t> BitmapLayout::write_piece(const NewBitmap& bitmap, uint64_t at, uint64_t count) {
  RETURN_IF_ERROR(bitmap.read(at, bits_.span()));
  clear_bits_from(bits_.span(), count);
  if (is_zero(bits_.span())) return kBitmapZeros;
  if (are_set(bits_.span(), count)) return kBitmapOnes;
  ASSIGN_OR_RETURN(const uint64_t cluster, clusters_.take());
  clusters_.count(cluster);
  RETURN_IF_ERROR(clusters_.write_cluster(cluster, bits_));
  return geometry_.start_of(HostCluster(cluster)).value();
}

Result<HostOffset> BitmapLayout::write_table(const std::vector<std::byte>& bytes) {
  const uint64_t clusters = geometry_.clusters_for(bytes.size());
  ASSIGN_OR_RETURN(const uint64_t first, clusters_.place_table(clusters));
  AlignedBuffer whole(clusters * geometry_.cluster_size());
  std::memset(whole.data(), 0, whole.size());
  std::copy(bytes.begin(), bytes.end(), whole.data());
  const HostOffset at = geometry_.start_of(HostCluster(first));
  RETURN_IF_ERROR(out_.write(at, whole.span()));
  return at;
}

Result<void> BitmapLayout::write(const NewBitmap& bitmap, uint64_t disk_size) {
  const uint64_t cluster_size = geometry_.cluster_size();
  const uint64_t all = Bitmap::bits_for(disk_size, bitmap.granularity_bits);
  Bitmap entry;
  entry.name = bitmap.name;
  entry.flags = bitmap.flags;
  entry.granularity_bits = bitmap.granularity_bits;
  entry.table_entries = static_cast<uint32_t>(
      Bitmap::clusters_for(disk_size, bitmap.granularity_bits, geometry_.cluster_bits()));
  std::vector<std::byte> table(uint64_t{entry.table_entries} * 8);
  for (uint64_t i = 0; i < entry.table_entries; ++i) {
    const uint64_t first = i * cluster_size * 8;
    const uint64_t count = std::min(all - std::min(all, first), cluster_size * 8);
    ASSIGN_OR_RETURN(const uint64_t word, write_piece(bitmap, i * cluster_size, count));
    store_be64(&table[i * 8], word);
  }
  ASSIGN_OR_RETURN(entry.table, write_table(table));
  append_bitmap_entry(directory_, entry);
  ++count_;
  return {};
}

Result<HeaderExtension> BitmapLayout::write_directory() {
  ASSIGN_OR_RETURN(const HostOffset at, write_table(directory_));
  return bitmap_extension(count_, directory_.size(), at);
}

}  // namespace vc::qcow2
