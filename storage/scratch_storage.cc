#include "storage/scratch_storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/rounding.h"

namespace vc {

namespace {

constexpr uint64_t kPage = 64 << 10;  // bytes

// Calls `visit (page, offset in the page, offset from at, length)` for each part of the range.
template <typename Visit>
Result<void> each_part(uint64_t at, uint64_t length, Visit visit) {
  for (uint64_t done = 0; done < length;) {
    const uint64_t in_page = (at + done) % kPage;
    const uint64_t part = std::min(kPage - in_page, length - done);
    RETURN_IF_ERROR(visit((at + done) / kPage, in_page, done, part));
    done += part;
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<ScratchStorage>> ScratchStorage::create(std::shared_ptr<Storage> below) {
  ASSIGN_OR_RETURN(const uint64_t size, below->size());
  return std::shared_ptr<ScratchStorage>(new ScratchStorage(std::move(below), size));
}

Result<void> ScratchStorage::read_below(uint64_t at, std::span<std::byte> to) const {
  std::fill(to.begin(), to.end(), std::byte{0});
  if (at >= kept_) return {};
  const auto part = to.first(std::min<uint64_t>(to.size(), kept_ - at));
  ASSIGN_OR_RETURN(const size_t got, below_->read(HostOffset(at), part));
  std::fill(part.begin() + static_cast<ptrdiff_t>(got), part.end(), std::byte{0});
  return {};
}

Result<size_t> ScratchStorage::read(HostOffset at, std::span<std::byte> to) const {
  const MutexLock lock(mutex_);
  if (at.value() >= size_) return size_t{0};
  to = to.first(std::min<uint64_t>(to.size(), size_ - at.value()));
  RETURN_IF_ERROR(read_below(at.value(), to));
  RETURN_IF_ERROR(
      each_part(at.value(), to.size(),
                [&](uint64_t page, uint64_t in_page, uint64_t done, uint64_t part) -> Result<void> {
                  mutex_.assert_held();
                  const auto found = pages_.find(page);
                  if (found != pages_.end())
                    std::copy_n(found->second.begin() + static_cast<ptrdiff_t>(in_page), part,
                                to.begin() + static_cast<ptrdiff_t>(done));
                  return {};
                }));
  return to.size();
}

Result<ScratchStorage::Page*> ScratchStorage::page_at(uint64_t index) {
  const auto found = pages_.find(index);
  if (found != pages_.end()) return &found->second;
  if ((pages_.size() + 1) * kPage > kMost)
    return fail(Error::system(
        ENOMEM,
        fmt::format(
            "{}: a dry run keeps at most {} MiB of changes in memory, and this run needs more",
            name(), kMost >> 20)));
  Page page(kPage);
  RETURN_IF_ERROR(read_below(index * kPage, page));
  return &pages_.emplace(index, std::move(page)).first->second;
}

Result<void> ScratchStorage::write(HostOffset at, std::span<const std::byte> from) {
  const MutexLock lock(mutex_);
  RETURN_IF_ERROR(each_part(
      at.value(), from.size(),
      [&](uint64_t index, uint64_t in_page, uint64_t done, uint64_t part) -> Result<void> {
        mutex_.assert_held();
        ASSIGN_OR_RETURN(Page* const page, page_at(index));
        std::copy_n(from.begin() + static_cast<ptrdiff_t>(done), part,
                    page->begin() + static_cast<ptrdiff_t>(in_page));
        return {};
      }));
  size_ = std::max<uint64_t>(size_, at.value() + from.size());
  return {};
}

Result<uint64_t> ScratchStorage::size() const {
  const MutexLock lock(mutex_);
  return size_;
}

Result<void> ScratchStorage::resize(uint64_t size) {
  const MutexLock lock(mutex_);
  if (size < size_) {
    kept_ = std::min(kept_, size);
    pages_.erase(pages_.lower_bound(divide_up(size, kPage)), pages_.end());
    const auto last = pages_.find(size / kPage);
    if (last != pages_.end())
      std::fill(last->second.begin() + static_cast<ptrdiff_t>(size % kPage), last->second.end(),
                std::byte{0});
  }
  size_ = size;
  return {};
}

}  // namespace vc
