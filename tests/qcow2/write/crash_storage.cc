#include "tests/qcow2/write/crash_storage.h"

#include <algorithm>
#include <cerrno>

namespace vc::test {

namespace {

constexpr uint64_t kSector = 512;

void put(std::vector<std::byte>& bytes, uint64_t at, std::span<const std::byte> from) {
  if (at + from.size() > bytes.size()) bytes.resize(at + from.size());
  std::copy(from.begin(), from.end(), bytes.begin() + static_cast<ptrdiff_t>(at));
}

}  // namespace

Result<size_t> CrashStorage::read(HostOffset at, std::span<std::byte> to) const {
  const std::lock_guard lock(mutex_);
  if (at.value() >= bytes_.size()) return size_t{0};
  const size_t count = std::min<uint64_t>(to.size(), bytes_.size() - at.value());
  std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(at.value()), count, to.begin());
  return count;
}

Result<void> CrashStorage::write(HostOffset at, std::span<const std::byte> from) {
  const std::lock_guard lock(mutex_);
  if (until_failure_ > 0) {
    --until_failure_;
    failing_ = failing_ || until_failure_ == 0;
  }
  if (failing_) return fail(Error::system(ENOSPC, name_));
  put(bytes_, at.value(), from);
  pending_.push_back({at.value(), {from.begin(), from.end()}});
  return {};
}

Result<void> CrashStorage::flush() {
  const std::lock_guard lock(mutex_);
  if (crashes_)
    for (int i = 0; i < 3; ++i) crashes_->push_back(crashed(crash_random_));
  safe_ = bytes_;
  pending_.clear();
  return {};
}

Result<uint64_t> CrashStorage::size() const {
  const std::lock_guard lock(mutex_);
  return uint64_t{bytes_.size()};
}

Result<void> CrashStorage::resize(uint64_t size) {
  const std::lock_guard lock(mutex_);
  bytes_.resize(size);
  return {};
}

// Punches a hole at once. Data that is still needed there is lost.
void CrashStorage::discard(HostOffset at, uint64_t length) {
  const std::lock_guard lock(mutex_);
  if (at.value() >= bytes_.size()) return;
  const std::vector<std::byte> zeros(std::min<uint64_t>(length, bytes_.size() - at.value()));
  put(bytes_, at.value(), zeros);
  pending_.push_back({at.value(), zeros});
}

Result<Storage::Run> CrashStorage::run_at(HostOffset /*at*/, uint64_t limit) const {
  return Run{limit, true};
}

std::vector<std::byte> CrashStorage::after_crash(std::mt19937_64& random) const {
  const std::lock_guard lock(mutex_);
  return crashed(random);
}

std::vector<std::byte> CrashStorage::crashed(std::mt19937_64& random) const {
  std::vector<std::byte> bytes = safe_;
  // The share of completed writes varies between crashes, from almost none to almost all.
  const uint64_t luck = random() % 11;
  for (const Write& write : pending_) {
    const bool torn = random() % 4 == 0;
    const bool kept = random() % 10 < luck;
    for (uint64_t at = write.at; at < write.at + write.bytes.size();) {
      const uint64_t end = std::min((at / kSector + 1) * kSector, write.at + write.bytes.size());
      if (torn ? random() % 2 == 0 : kept)
        put(bytes, at, std::span(write.bytes).subspan(at - write.at, end - at));
      at = end;
    }
  }
  return bytes;
}

void CrashStorage::fail_after(uint64_t writes) {
  const std::lock_guard lock(mutex_);
  until_failure_ = writes;
  failing_ = false;
}

void CrashStorage::crash_at_flushes(std::vector<std::vector<std::byte>>& crashes, uint64_t seed) {
  const std::lock_guard lock(mutex_);
  crashes_ = &crashes;
  crash_random_.seed(seed);
}

}  // namespace vc::test
