#include "qcow2/bitmaps/changed_ranges.h"

#include <algorithm>

#include "base/rounding.h"
#include "qcow2/bitmaps/bitmap_bits.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kMostUnits = uint64_t{8} * (32 << 20);

}  // namespace

ChangedRanges::ChangedRanges(uint64_t disk_size, unsigned unit_bits)
    : size_(disk_size), unit_bits_(unit_bits) {
  while (divide_up(size_, unit()) > kMostUnits) ++unit_bits_;
  pages_.resize(divide_up(divide_up(size_, unit()), kPageBits));
}

void ChangedRanges::add(GuestOffset at, uint64_t length) {
  if (length == 0 || at.value() >= size_) return;
  length = std::min(length, size_ - at.value());
  uint64_t first = at.value() >> unit_bits_;
  const uint64_t end = ((at.value() + length - 1) >> unit_bits_) + 1;
  const MutexLock lock(mutex_);
  while (first < end) {
    auto& page = pages_[first / kPageBits];
    if (!page) page = std::make_unique<Page>();
    const uint64_t count = std::min(end - first, kPageBits - first % kPageBits);
    set_bits(*page, first % kPageBits, count);
    first += count;
  }
}

bool ChangedRanges::empty() const {
  const MutexLock lock(mutex_);
  return std::none_of(pages_.begin(), pages_.end(), [](const auto& it) { return it != nullptr; });
}

void ChangedRanges::merge_into(std::span<std::byte> bits, uint64_t first_bit,
                               unsigned granularity_bits) const {
  const uint64_t begin = first_bit << granularity_bits;
  const uint64_t length = uint64_t{bits.size() * 8} << granularity_bits;
  if (begin >= size_ || length == 0) return;
  const uint64_t end_bit = ((std::min(size_ - begin, length) - 1) >> granularity_bits) + 1;
  const uint64_t end = begin + std::min(size_ - begin, length);
  const MutexLock lock(mutex_);
  const uint64_t end_unit = ((end - 1) >> unit_bits_) + 1;
  for (uint64_t unit = begin >> unit_bits_; unit < end_unit;) {
    const uint64_t page_start = unit / kPageBits * kPageBits;
    const uint64_t stop = std::min(end_unit, page_start + kPageBits);
    const auto& page = pages_[unit / kPageBits];
    for (uint64_t at = unit; page && at < stop;) {
      const uint64_t set = page_start + find_bit(*page, at - page_start, stop - page_start, true);
      if (set == stop) break;
      at = page_start + find_bit(*page, set - page_start, stop - page_start, false);
      const uint64_t from = std::max(set << unit_bits_, begin) - begin;
      const uint64_t to = std::min(at << unit_bits_, end) - begin;
      const uint64_t first = from >> granularity_bits;
      set_bits(bits, first, std::min(((to - 1) >> granularity_bits) + 1, end_bit) - first);
    }
    unit = stop;
  }
}

}  // namespace vc::qcow2
