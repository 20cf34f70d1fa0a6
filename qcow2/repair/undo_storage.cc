#include "qcow2/repair/undo_storage.h"

#include <algorithm>
#include <cerrno>

#include "base/zero_bytes.h"

namespace vc::qcow2 {

namespace {

constexpr uint64_t kMostBytesAtOnce = 16 << 20;  // bytes

}  // namespace

Result<uint64_t> UndoStorage::size() const {
  ASSIGN_OR_RETURN(const uint64_t size, image_->size());
  const MutexLock lock(mutex_);
  if (pending_.empty()) return size;
  const auto& last = *pending_.rbegin();
  return std::max<uint64_t>(size, last.first + last.second.size());
}

Result<size_t> UndoStorage::read(HostOffset at, std::span<std::byte> to) const {
  ASSIGN_OR_RETURN(const uint64_t end, size());
  const MutexLock lock(mutex_);
  if (at.value() >= end) return size_t{0};
  to = to.first(std::min<uint64_t>(to.size(), end - at.value()));
  std::fill(to.begin(), to.end(), std::byte{0});
  ASSIGN_OR_RETURN(const uint64_t size, image_->size());
  if (at.value() < size)
    RETURN_IF_ERROR(image_->read(at, to.first(std::min<uint64_t>(to.size(), size - at.value()))));
  const uint64_t stop = at.value() + to.size();
  auto it = pending_.upper_bound(at.value());
  if (it != pending_.begin()) --it;
  for (; it != pending_.end() && it->first < stop; ++it) {
    const uint64_t begin = std::max(at.value(), it->first);
    const uint64_t limit = std::min(stop, it->first + it->second.size());
    if (begin < limit)
      std::copy_n(it->second.begin() + static_cast<ptrdiff_t>(begin - it->first), limit - begin,
                  to.begin() + static_cast<ptrdiff_t>(begin - at.value()));
  }
  return to.size();
}

Result<void> UndoStorage::write(HostOffset at, std::span<const std::byte> from) {
  if (from.empty()) return {};
  const MutexLock lock(mutex_);
  uint64_t begin = at.value();
  uint64_t end = begin + from.size();
  std::vector<std::byte> bytes(from.begin(), from.end());
  // Merges overlapping writes.
  auto it = pending_.upper_bound(begin);
  if (it != pending_.begin() && std::prev(it)->first + std::prev(it)->second.size() > begin) --it;
  while (it != pending_.end() && it->first < end) {
    const uint64_t old_end = it->first + it->second.size();
    if (it->first < begin) {
      bytes.insert(bytes.begin(), it->second.begin(),
                   it->second.begin() + static_cast<ptrdiff_t>(begin - it->first));
      begin = it->first;
    }
    if (old_end > end) {
      bytes.insert(bytes.end(), it->second.end() - static_cast<ptrdiff_t>(old_end - end),
                   it->second.end());
      end = old_end;
    }
    it = pending_.erase(it);
  }
  pending_.emplace(begin, std::move(bytes));
  return {};
}

Result<void> UndoStorage::flush() {
  const MutexLock lock(mutex_);
  if (pending_.empty()) return has_written_ ? image_->flush() : Result<void>{};
  ASSIGN_OR_RETURN(const uint64_t size, image_->size());
  if (auto kept = remember(size); !kept) {
    if (undo_ && !has_written_) {
      undo_->remove();
      undo_.reset();
    }
    return kept;
  }
  has_written_ = true;
  for (const auto& [at, bytes] : pending_) RETURN_IF_ERROR(image_->write(HostOffset(at), bytes));
  RETURN_IF_ERROR(image_->flush());
  pending_.clear();
  return {};
}

// Adds the data to be overwritten to the undo file, and flushes it.
Result<void> UndoStorage::remember(uint64_t size) {
  if (undo_path_.empty()) return {};
  if (!undo_) {
    ASSIGN_OR_RETURN(undo_, UndoFile::create(undo_path_, *image_));
  }
  for (const auto& [at, bytes] : pending_) {
    std::vector<std::byte> before(bytes.size());
    if (at < size)
      RETURN_IF_ERROR(image_->read(
          HostOffset(at), std::span(before).first(std::min<uint64_t>(before.size(), size - at))));
    RETURN_IF_ERROR(undo_->add(HostOffset(at), before, bytes));
  }
  return undo_->flush();
}

// Returns whether the added record is on disk; false if there is no space.
Result<bool> UndoStorage::keep(const Result<void>& added) {
  auto kept = added ? undo_->flush() : added;
  if (kept) return true;
  const int error = kept.error().errnum();
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) return false;
  return fail(std::move(kept).error());
}

Result<bool> UndoStorage::deallocate(HostOffset at, uint64_t length) {
  const MutexLock lock(mutex_);
  std::vector<std::byte> before;
  for (uint64_t done = 0; done < length;) {
    const uint64_t part = std::min<uint64_t>(length - done, kMostBytesAtOnce);
    before.resize(part);
    RETURN_IF_ERROR(image_->read(at + done, before));
    if (!undo_path_.empty() && !is_zero(before)) {
      if (!undo_) {
        auto made = UndoFile::create(undo_path_, *image_);
        if (!made) return keep(fail(std::move(made).error()));
        undo_ = std::move(*made);
      }
      ASSIGN_OR_RETURN(const bool kept, keep(undo_->add_zeroed(at + done, before)));
      if (!kept) return false;
    }
    has_written_ = true;
    RETURN_IF_ERROR(image_->write_zeroes(at + done, part));
    done += part;
  }
  return true;
}

Result<bool> UndoStorage::truncate(uint64_t size) {
  const MutexLock lock(mutex_);
  RETURN_IF_ERROR(image_->flush());
  if (!undo_path_.empty()) {
    if (!undo_) {
      auto made = UndoFile::create(undo_path_, *image_);
      if (!made) return keep(fail(std::move(made).error()));
      undo_ = std::move(*made);
    }
    ASSIGN_OR_RETURN(const bool kept, keep(undo_->add_cut(size)));
    if (!kept) return false;
  }
  has_written_ = true;
  RETURN_IF_ERROR(image_->resize(size));
  RETURN_IF_ERROR(image_->flush());
  return true;
}

Result<void> UndoStorage::finish() {
  const MutexLock lock(mutex_);
  if (!undo_) return {};
  RETURN_IF_ERROR(undo_->finish());
  return undo_->flush();
}

Result<void> UndoStorage::resize(uint64_t /*size*/) {
  return fail(Error::system(EINVAL, name() + ": a repair does not set the length"));
}

Result<Storage::Run> UndoStorage::run_at(HostOffset at, uint64_t limit) const {
  const MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(const uint64_t size, image_->size());
  if (!pending_.empty() || at.value() >= size) return Run{limit, true};
  return image_->run_at(at, limit);
}

}  // namespace vc::qcow2
