#include "guest/reading/byte_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace vc::guest {

namespace {

// Longest read. No reader needs more; a hostile volume may ask for more.
constexpr uint64_t kMostAtOnce = 64 << 20;

}  // namespace

Result<void> ByteView::read(uint64_t at, std::span<std::byte> to) const {
  if (at > size() || to.size() > size() - at)
    return fail(Error::corrupt(fmt::format("its metadata point outside of it: {} bytes at {} of {}",
                                           to.size(), at, size())));
  if (to.empty()) return {};
  if (is_cancelled()) return fail(Error::cancelled());
  return fetch(at, to);
}

Result<Block> ByteView::block(uint64_t at, uint64_t length) const {
  if (length > kMostAtOnce || at > size() || length > size() - at)
    return fail(Error::corrupt(
        fmt::format("its metadata point outside of it: {} bytes at {} of {}", length, at, size())));
  Block block(length);
  RETURN_IF_ERROR(read(at, block.bytes()));
  return block;
}

void DiskView::to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const {
  for (const Range& range : ranges.all())
    out[number_].add(range.begin, std::min(range.end, size()));
}

Result<void> ImageView::fetch(uint64_t at, std::span<std::byte> to) const {
  return disk_.read(GuestOffset(at), to);
}

uint64_t MappedView::size() const {
  return pieces_.empty() ? 0 : pieces_.back().begin + pieces_.back().length;
}

std::vector<MappedView::Piece>::const_iterator MappedView::piece_at(uint64_t at) const {
  return std::upper_bound(
      pieces_.begin(), pieces_.end(), at,
      [](uint64_t offset, const Piece& piece) { return offset < piece.begin + piece.length; });
}

void MappedView::to_disks(const Ranges& ranges, std::vector<Ranges::Builder>& out) const {
  for (const Range& range : ranges.all()) {
    for (auto it = piece_at(range.begin); it != pieces_.end() && it->begin < range.end; ++it) {
      const uint64_t begin = std::max(range.begin, it->begin);
      const uint64_t end = std::min(range.end, it->begin + it->length);
      if (begin < end)
        it->view->to_disks(one_range(it->at + (begin - it->begin), it->at + (end - it->begin)),
                           out);
    }
  }
}

Result<void> MappedView::fetch(uint64_t at, std::span<std::byte> to) const {
  for (auto it = piece_at(at); !to.empty(); ++it) {
    const uint64_t offset = at - it->begin;
    const size_t length = std::min<uint64_t>(to.size(), it->length - offset);
    RETURN_IF_ERROR(it->view->read(it->at + offset, to.first(length)));
    at += length;
    to = to.subspan(length);
  }
  return {};
}

std::shared_ptr<const ByteView> window(std::shared_ptr<const ByteView> view, uint64_t begin,
                                       uint64_t length) {
  return std::make_shared<MappedView>(
      std::vector<MappedView::Piece>{{0, length, std::move(view), begin}});
}

}  // namespace vc::guest
