#include "qcow2/write/bitmap_rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "base/zero_bytes.h"
#include "qcow2/bitmaps/bitmap_bits.h"
#include "qcow2/bitmaps/bitmap_reader.h"

namespace vc::qcow2 {

Result<void> BitmapRewrite::begin() {
  bytes_.resize(directory_.size);
  return with_context(read_fully(*storage_, directory_.at, bytes_), "bitmap directory");
}

// Writes whole clusters to a new place.
Result<HostOffset> BitmapRewrite::put(std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(const Refcounts::Run run,
                   refcounts_.allocate_table(bytes.size() / geometry_.cluster_size()));
  written_.push_back(run);
  const HostOffset at = geometry_.start_of(run.first);
  RETURN_IF_ERROR(storage_->write(at, bytes));
  return at;
}

// Stores a piece of a bitmap, of which `count` bits are valid.  Returns the entry of its table.
Result<uint64_t> BitmapRewrite::entry_for(std::span<const std::byte> bits, uint64_t count) {
  if (is_zero(bits)) return kBitmapZeros;
  if (are_set(bits, count)) return kBitmapOnes;
  ASSIGN_OR_RETURN(const HostOffset at, put(bits));
  return at.value();
}

Result<void> BitmapRewrite::add(size_t index, uint64_t disk_size, const Change& change) {
  const Bitmap& bitmap = directory_.bitmaps[index];
  const uint64_t cluster_size = geometry_.cluster_size();
  const BitmapReader old(*storage_, geometry_, bitmap);
  const uint64_t all = Bitmap::bits_for(disk_size, bitmap.granularity_bits);
  const uint64_t clusters =
      Bitmap::clusters_for(disk_size, bitmap.granularity_bits, geometry_.cluster_bits());
  std::vector<std::byte> table(round_up(clusters * 8, cluster_size));
  std::vector<std::byte> bits(cluster_size);
  for (uint64_t i = 0; i < clusters; ++i) {
    const uint64_t first = i * cluster_size * 8;
    const uint64_t count = std::min(all - std::min(all, first), cluster_size * 8);
    RETURN_IF_ERROR(old.read(i * cluster_size, bits));
    change(bits, first);
    clear_bits_from(bits, count);
    ASSIGN_OR_RETURN(const uint64_t word, entry_for(bits, count));
    store_be64(&table[i * 8], word);
  }
  ASSIGN_OR_RETURN(const HostOffset at, put(table));
  std::byte* const entry = bytes_.data() + (bitmap.entry - directory_.at);
  store_be64(entry + bitmap_field::kTable, at.value());
  store_be32(entry + bitmap_field::kTableEntries, static_cast<uint32_t>(clusters));
  store_be32(entry + bitmap_field::kFlags, bitmap.flags & ~Bitmap::kInUse);

  for (uint64_t i = 0; i < bitmap.table_entries; ++i) {
    ASSIGN_OR_RETURN(const uint64_t word, old.entry(i));
    if (word != kBitmapZeros && word != kBitmapOnes)
      replaced_.push_back({geometry_.host_cluster_of(HostOffset(word)), 1});
  }
  replaced_.push_back({geometry_.host_cluster_of(bitmap.table),
                       geometry_.clusters_for(uint64_t{bitmap.table_entries} * 8)});
  return {};
}

Result<void> BitmapRewrite::write_directory() {
  std::vector<std::byte> whole = bytes_;
  whole.resize(round_up(whole.size(), geometry_.cluster_size()));
  ASSIGN_OR_RETURN(at_, put(whole));
  replaced_.push_back(
      {geometry_.host_cluster_of(directory_.at), geometry_.clusters_for(directory_.size)});
  return {};
}

Result<void> BitmapRewrite::switch_over() {
  std::array<std::byte, 8> field{};
  RETURN_IF_ERROR(read_fully(*storage_, directory_.pointer, field));
  if (load_be64(field.data()) != directory_.at.value())
    return fail(Error::corrupt(
        fmt::format("{}: the header extension of bitmaps has changed", storage_->name())));
  store_be64(field.data(), at_.value());
  RETURN_IF_ERROR(storage_->write(directory_.pointer, field));
  return storage_->flush();
}

Result<void> BitmapRewrite::abandon() {
  std::vector<ClusterRun> freed;
  for (const ClusterRun& run : std::exchange(written_, {}))
    RETURN_IF_ERROR(refcounts_.release(run.first, run.count, freed));
  return {};
}

}  // namespace vc::qcow2
