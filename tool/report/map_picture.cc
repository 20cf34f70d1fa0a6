#include "tool/report/map_picture.h"

#include <algorithm>

#include "base/rounding.h"

namespace vc::tool {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

// Not ISO C++, but supported by GCC and Clang.
__extension__ using Wide = unsigned __int128;

// Returns the start of bin number `bin` of `bins` in [0, size). Rounds up, to agree with bin_of.
uint64_t bin_start(uint64_t bin, uint64_t bins, uint64_t size) {
  return static_cast<uint64_t>((static_cast<Wide>(bin) * size + bins - 1) / bins);
}

uint64_t bin_of(uint64_t at, uint64_t bins, uint64_t size) {
  return std::min(bins - 1, static_cast<uint64_t>(static_cast<Wide>(at) * bins / size));
}

// Splits [at, at + length) of [0, size) at the bounds of the bins, and calls `visit(bin, part)`.
template <typename Visit>
void for_bins(uint64_t at, uint64_t length, uint64_t bins, uint64_t size, Visit visit) {
  if (size == 0 || at >= size) return;
  const uint64_t end = at + std::min(length, size - at);
  while (at < end) {
    const uint64_t bin = bin_of(at, bins, size);
    const uint64_t stop = bin + 1 == bins ? end : std::min(end, bin_start(bin + 1, bins, size));
    visit(bin, stop - at);
    at = stop;
  }
}

}  // namespace

MapPicture::MapPicture(const Subject& subject)
    : subject_(subject), cells_(size_t{kColumns} * kRows), guests_(kColumns), uses_(kRows) {}

// Visits the cells that a contiguous extent crosses, along both axes.
void MapPicture::mark(uint64_t guest, uint64_t host, uint64_t guest_length, uint64_t host_length,
                      bool compressed) {
  uint64_t done = 0;
  while (done < host_length) {
    const uint64_t guest_at = guest + std::min(done, guest_length - 1);
    const uint64_t host_at = host + done;
    if (guest_at >= subject_.disk_size || host_at >= subject_.file_size) return;
    const uint64_t column = bin_of(guest_at, kColumns, subject_.disk_size);
    const uint64_t row = bin_of(host_at, kRows, subject_.file_size);
    uint64_t part = host_length - done;
    if (row + 1 < kRows)
      part = std::min(part, bin_start(row + 1, kRows, subject_.file_size) - host_at);
    if (column + 1 < kColumns && !compressed)
      part = std::min(part, bin_start(column + 1, kColumns, subject_.disk_size) - guest_at);
    Cell& cell = cells_[row * kColumns + column];
    (compressed ? cell.compressed : cell.plain) += part;
    done += part;
  }
}

void MapPicture::add(const Extent& extent) {
  Guest guest = Guest::kNothing;
  if (extent.kind == ExtentKind::kZero) guest = Guest::kZero;
  if (extent.kind == ExtentKind::kData) guest = Guest::kData;
  if (extent.kind == ExtentKind::kCompressed) guest = Guest::kCompressed;
  if (extent.depth > 0 && !extent.reads_as_zero()) {
    guest = Guest::kBacking;
    other_files_ = true;
  }
  guest_bytes_[static_cast<size_t>(guest)] += extent.length;
  for_bins(extent.guest.value(), extent.length, kColumns, subject_.disk_size,
           [&](uint64_t bin, uint64_t part) { guests_[bin][static_cast<size_t>(guest)] += part; });
  if (guest == Guest::kData)
    mark(extent.guest.value(), extent.host.value(), extent.length, extent.length, false);
  if (guest == Guest::kCompressed)
    mark(extent.guest.value(), extent.host.value(), extent.length, extent.compressed_length, true);
}

void MapPicture::add(HostCluster first, uint64_t count, qcow2::HostUse use) {
  const uint64_t size = subject_.cluster_size;
  // In units of clusters, to avoid overflow.
  const uint64_t clusters = divide_up(subject_.file_size, size);
  for_bins(first.value(), count, kRows, clusters,
           [&](uint64_t bin, uint64_t part) { uses_[bin][static_cast<size_t>(use)] += part; });
}

}  // namespace vc::tool
