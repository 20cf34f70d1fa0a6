#include "copy/digests.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "qcow2/zero.h"

namespace copy {

using qcow2::GuestOffset;

namespace {

constexpr uint64_t kLargestPiece = 64 << 10;
constexpr uint64_t kSmallestRegion = 1 << 20;
constexpr uint64_t kMostRegions = 1 << 18;

uint64_t region_size_for(uint64_t size) {
  const uint64_t even = size / kMostRegions + (size % kMostRegions != 0);
  return std::bit_ceil(std::max(even, kSmallestRegion));
}

size_t count_of(uint64_t size, uint64_t region_size) {
  return size / region_size + (size % region_size != 0);
}

// Of a piece at a place: the same bytes elsewhere have another.
XXH128_hash_t digest_of(uint64_t at, std::span<const std::byte> piece) {
  const XXH128_hash_t content = XXH3_128bits(piece.data(), piece.size());
  const uint64_t mixed[] = {content.low64, content.high64, at};
  return XXH3_128bits(mixed, sizeof mixed);
}

}  // namespace

Digests::Digests(uint64_t size, uint64_t granule)
    : size_(size),
      piece_size_(std::min(granule, kLargestPiece)),
      region_size_(region_size_for(size)),
      regions_(count_of(size, region_size_)) {}

void Digests::add(GuestOffset at, std::span<const std::byte> bytes) {
  if (at.value() >= size_) return;
  bytes = bytes.first(std::min<uint64_t>(bytes.size(), size_ - at.value()));
  while (!bytes.empty()) {
    Region& region = regions_[at.value() / region_size_];
    const uint64_t in_region =
        std::min<uint64_t>(bytes.size(), region_size_ - at.value() % region_size_);
    uint64_t low = 0;
    uint64_t high = 0;
    for (uint64_t done = 0; done < in_region; done += piece_size_) {
      const auto piece = bytes.subspan(done, std::min(piece_size_, in_region - done));
      if (qcow2::is_zero(piece)) continue;
      const XXH128_hash_t digest = digest_of((at + done).value(), piece);
      low += digest.low64;
      high += digest.high64;
    }
    // Nobody reads before all have added, which their threads' ends tell of.
    region.low.fetch_add(low, std::memory_order_relaxed);
    region.high.fetch_add(high, std::memory_order_relaxed);
    at += in_region;
    bytes = bytes.subspan(in_region);
  }
}

std::vector<Digests::Range> Digests::differences(const Digests& other) const {
  std::vector<Range> ranges;
  for (size_t i = 0; i < regions_.size(); ++i) {
    const Region& mine = regions_[i];
    const Region& others = other.regions_[i];
    if (mine.low == others.low && mine.high == others.high) continue;
    const GuestOffset begin(i * region_size_);
    const GuestOffset end(begin.value() + std::min(region_size_, size_ - begin.value()));
    if (!ranges.empty() && ranges.back().end == begin)
      ranges.back().end = end;
    else
      ranges.push_back({begin, end});
  }
  return ranges;
}

}  // namespace copy
