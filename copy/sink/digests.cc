#include "copy/sink/digests.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "base/rounding.h"
#include "base/zero_bytes.h"
#include "copy/source/cloning.h"

namespace vc::copy {

namespace {

constexpr uint64_t kLargestPiece = 64 << 10;
constexpr uint64_t kSmallestRegion = 1 << 20;
constexpr uint64_t kRegionOfUnknown = 64 << 20;
constexpr uint64_t kSmallestGroup = Cloning::kSmallestGroup;
constexpr uint64_t kMostRegions = 1 << 18;
constexpr uint64_t kCoarseRegions = 32;

uint64_t region_size_for(uint64_t size) {
  if (size == Digests::kUnknown) return kRegionOfUnknown;
  return std::bit_ceil(std::max(divide_up(size, kMostRegions), kSmallestRegion));
}

// Returns the digest of a piece at an offset: equal bytes elsewhere have another digest.
XXH128_hash_t digest_at(uint64_t at, XXH128_hash_t content) {
  const uint64_t mixed[] = {content.low64, content.high64, at};
  return XXH3_128bits(mixed, sizeof mixed);
}

// The disk may end inside a piece, and its size may have been unknown when the piece was added:
// pads with zeros.
XXH128_hash_t content_of(std::span<const std::byte> piece, uint64_t piece_size) {
  if (piece.size() == piece_size) return XXH3_128bits(piece.data(), piece.size());
  std::vector<std::byte> whole(piece_size);
  std::copy(piece.begin(), piece.end(), whole.begin());
  return XXH3_128bits(whole.data(), whole.size());
}

}  // namespace

Digests::Digests(uint64_t size, uint64_t granule, Zeros zeros)
    : Digests(size, std::min(granule, kLargestPiece), region_size_for(size),
              std::max(granule, kSmallestGroup), zeros) {}

Digests::Digests(uint64_t size, uint64_t piece_size, uint64_t region_size, uint64_t clone_group,
                 Zeros zeros)
    : size_(size),
      piece_size_(piece_size),
      region_size_(region_size),
      clone_group_(clone_group),
      zeros_(zeros),
      regions_(std::min(divide_up(size, region_size), kMostRegions)) {}

Digests Digests::coarse(uint64_t size, uint64_t granule, Zeros zeros) {
  const uint64_t region = std::bit_ceil(std::max(divide_up(size, kCoarseRegions), kSmallestRegion));
  return {size, std::min(granule, kLargestPiece), region, std::max(granule, kSmallestGroup), zeros};
}

template <typename SumOf>
void Digests::add_pieces(GuestOffset at, uint64_t length, SumOf sum_of) {
  if (at.value() >= size_) return;
  const uint64_t end = at.value() + std::min(length, size_ - at.value());
  uint64_t begin = at.value();
  while (begin < end) {
    Region& region = regions_[std::min(begin / region_size_, regions_.size() - 1)];
    const uint64_t region_end = std::min(end, begin + (region_size_ - begin % region_size_));
    Sum sum;
    for (; begin < region_end; begin += std::min(piece_size_, region_end - begin)) {
      const Sum piece = sum_of(begin, std::min(piece_size_, region_end - begin));
      sum.low += piece.low;
      sum.high += piece.high;
    }
    // Relaxed order suffices: readers run after the adding threads have been joined.
    region.low.fetch_add(sum.low, std::memory_order_relaxed);
    region.high.fetch_add(sum.high, std::memory_order_relaxed);
  }
}

void Digests::add(GuestOffset at, std::span<const std::byte> bytes) {
  add_pieces(at, bytes.size(), [&](uint64_t begin, uint64_t length) -> Sum {
    const auto piece = bytes.subspan(begin - at.value(), length);
    if (zeros_ == Zeros::kImplied && is_zero(piece)) return {};
    const XXH128_hash_t digest = digest_at(begin, content_of(piece, piece_size_));
    return {digest.low64, digest.high64};
  });
}

void Digests::add_zeros(GuestOffset at, uint64_t length) {
  if (zeros_ == Zeros::kImplied) return;
  const XXH128_hash_t zeros = content_of({}, piece_size_);
  add_pieces(at, length, [&](uint64_t begin, uint64_t) -> Sum {
    const XXH128_hash_t digest = digest_at(begin, zeros);
    return {digest.low64, digest.high64};
  });
}

void Digests::add_clone(GuestOffset at) {
  clones_->add(at.value() / clone_group_);
  // The digest of no bytes.
  const XXH128_hash_t digest = digest_at(at.value(), XXH3_128bits(nullptr, 0));
  Region& region = regions_[std::min(at.value() / region_size_, regions_.size() - 1)];
  region.low.fetch_add(digest.low64, std::memory_order_relaxed);
  region.high.fetch_add(digest.high64, std::memory_order_relaxed);
}

std::vector<Digests::Range> Digests::differences(const Digests& other) const {
  std::vector<Range> ranges;
  for (size_t i = 0; i < regions_.size() && i * region_size_ < size_; ++i) {
    const Region& mine = regions_[i];
    const Region& others = other.regions_[i];
    if (mine.low == others.low && mine.high == others.high) continue;
    const GuestOffset begin(i * region_size_);
    const bool last = i + 1 == regions_.size();
    const GuestOffset end(last ? size_ : std::min(size_, begin.value() + region_size_));
    if (!ranges.empty() && ranges.back().end == begin)
      ranges.back().end = end;
    else
      ranges.push_back({begin, end});
  }
  return ranges;
}

}  // namespace vc::copy
