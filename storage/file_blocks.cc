#include "storage/file_blocks.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/retry.h"

namespace vc {

namespace {

constexpr uint32_t kExtentsPerQuery = 512;

// The place of such an extent is not the place of its bytes.
constexpr uint32_t kNotComparable = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC |
                                    FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_ENCRYPTED |
                                    FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_DATA_INLINE |
                                    FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_UNWRITTEN;

}  // namespace

void FileBlocks::ask(uint64_t at) {
  extents_.clear();
  last_ = 0;
  // The kernel's structure ends with an array without a size.
  std::vector<uint64_t> memory((sizeof(fiemap) + kExtentsPerQuery * sizeof(fiemap_extent)) /
                               sizeof(uint64_t));
  auto* const query = reinterpret_cast<fiemap*>(memory.data());
  query->fm_start = at;
  query->fm_length = FIEMAP_MAX_OFFSET - at;
  query->fm_flags = FIEMAP_FLAG_SYNC;
  query->fm_extent_count = kExtentsPerQuery;
  if (retry(::ioctl, fd_, FS_IOC_FIEMAP, query) != 0) return;
  const auto* const found = reinterpret_cast<const std::byte*>(memory.data()) + sizeof(fiemap);
  for (uint32_t i = 0; i < std::min(query->fm_mapped_extents, kExtentsPerQuery); ++i) {
    fiemap_extent extent{};
    std::memcpy(&extent, found + i * sizeof extent, sizeof extent);
    extents_.push_back({extent.fe_logical, extent.fe_logical + extent.fe_length, extent.fe_physical,
                        (extent.fe_flags & kNotComparable) == 0});
  }
}

const FileBlocks::Extent* FileBlocks::find(uint64_t at) {
  const auto contains = [&](const Extent& it) { return it.begin <= at && at < it.end; };
  // Most queries are in order.
  for (size_t i = last_; i < std::min(last_ + 2, extents_.size()); ++i)
    if (contains(extents_[i])) return &extents_[last_ = i];
  auto it = std::find_if(extents_.begin(), extents_.end(), contains);
  if (it == extents_.end()) {
    ask(at);
    it = std::find_if(extents_.begin(), extents_.end(), contains);
    if (it == extents_.end()) return nullptr;
  }
  last_ = static_cast<size_t>(it - extents_.begin());
  return &*it;
}

bool FileBlocks::are_shared(uint64_t at, uint64_t length, FileBlocks& other, uint64_t other_at) {
  while (length > 0) {
    const Extent* const mine = find(at);
    const Extent* const its = other.find(other_at);
    if (!mine || !its || !mine->is_known || !its->is_known) return false;
    if (mine->place + (at - mine->begin) != its->place + (other_at - its->begin)) return false;
    const uint64_t part = std::min({length, mine->end - at, its->end - other_at});
    at += part;
    other_at += part;
    length -= part;
  }
  return true;
}

}  // namespace vc
