#include "guest/filesystem/btrfs_chunks.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "guest/reading/reading.h"

namespace vc::guest {

namespace {

constexpr uint8_t kChunkItem = 228;
constexpr size_t kKeySize = 17;
// Flags for data, system and metadata, with one copy or two.
constexpr uint64_t kDup = 0x20;
constexpr uint64_t kKnownTypes = 0x1 | 0x2 | 0x4 | kDup;

Failure damaged() {
  return doubt("its chunks are damaged");
}

}  // namespace

Result<void> BtrfsChunks::add(uint64_t logical, const Fields& item) {
  const unsigned stripes = item.le16(44);
  Chunk chunk{item.le64(0), item.le64(24), {}};
  if ((chunk.type & ~kKnownTypes) != 0)
    return doubt(fmt::format("its profile is unknown ({:x})", chunk.type));
  if (stripes != ((chunk.type & kDup) != 0 ? 2 : 1) || item.size() < item_size(stripes) ||
      chunk.length == 0 || chunk.length > device_size_ || logical + chunk.length < logical)
    return damaged();
  for (unsigned i = 0; i < stripes; ++i) {
    const uint64_t at = item.le64(item_size(i) + 8);
    if (item.le64(item_size(i)) != device_id_ || at > device_size_ - chunk.length) return damaged();
    chunk.places.push_back(at);
  }
  const auto after = chunks_.lower_bound(logical);
  if (after != chunks_.end() && after->first == logical)
    return after->second == chunk ? Result<void>() : damaged();
  if (after != chunks_.end() && after->first < logical + chunk.length) return damaged();
  if (after != chunks_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second.length > logical) return damaged();
  }
  chunks_.emplace(logical, std::move(chunk));
  return {};
}

Result<void> BtrfsChunks::add_system_chunks(const Fields& array) {
  for (size_t at = 0; at < array.size();) {
    const Fields item = array.part(at + kKeySize);
    const size_t size = item_size(item.le16(44));
    if (array.u8(at + 8) != kChunkItem || size > item.size()) return damaged();
    RETURN_IF_ERROR(add(array.le64(at + 9), item.part(0, size)));
    at += kKeySize + size;
  }
  return {};
}

Result<std::vector<uint64_t>> BtrfsChunks::places(uint64_t logical, uint64_t length) const {
  auto it = chunks_.upper_bound(logical);
  if (it == chunks_.begin()) return doubt("its metadata refer to an address outside of all chunks");
  --it;
  const uint64_t offset = logical - it->first;
  if (offset > it->second.length || length > it->second.length - offset)
    return doubt("its metadata refer to an address outside of all chunks");
  std::vector<uint64_t> places = it->second.places;
  for (uint64_t& place : places) place += offset;
  return places;
}

Result<uint64_t> BtrfsChunks::allocated() const {
  Ranges::Builder builder;
  uint64_t sum = 0;
  for (const auto& [logical, chunk] : chunks_) {
    for (const uint64_t place : chunk.places) {
      builder.add(place, place + chunk.length);
      sum += chunk.length;
    }
  }
  if (builder.take().total() != sum) return damaged();
  return sum;
}

}  // namespace vc::guest
