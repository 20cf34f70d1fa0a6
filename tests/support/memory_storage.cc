#include "tests/support/memory_storage.h"

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

namespace vc::qcow2 {

MemoryStorage::MemoryStorage(std::string name, std::vector<std::byte> bytes)
    : name_(std::move(name)), bytes_(std::move(bytes)) {}

Result<size_t> MemoryStorage::read(HostOffset at, std::span<std::byte> to) const {
  std::shared_lock lock(mutex_);
  if (at.value() >= bytes_.size()) return size_t{0};
  const size_t count = std::min<uint64_t>(to.size(), bytes_.size() - at.value());
  std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(at.value()), count, to.begin());
  return count;
}

Result<void> MemoryStorage::write(HostOffset at, std::span<const std::byte> from) {
  std::unique_lock lock(mutex_);
  if (at.value() > bytes_.max_size() - from.size()) return fail(Error::system(EFBIG, name_));
  const uint64_t end = at.value() + from.size();
  if (end > bytes_.size()) bytes_.resize(end);
  std::copy(from.begin(), from.end(), bytes_.begin() + static_cast<ptrdiff_t>(at.value()));
  return {};
}

Result<uint64_t> MemoryStorage::size() const {
  std::shared_lock lock(mutex_);
  return uint64_t{bytes_.size()};
}

Result<void> MemoryStorage::resize(uint64_t size) {
  std::unique_lock lock(mutex_);
  if (size > bytes_.max_size()) return fail(Error::system(EFBIG, name_));
  bytes_.resize(size);
  return {};
}

Result<Storage::Run> MemoryStorage::run_at(HostOffset at, uint64_t limit) const {
  std::shared_lock lock(mutex_);
  return Run{std::min<uint64_t>(limit, bytes_.size() - at.value()), true};
}

std::vector<std::byte> MemoryStorage::bytes() const {
  std::shared_lock lock(mutex_);
  return bytes_;
}

}  // namespace vc::qcow2
