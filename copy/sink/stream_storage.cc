#include "copy/sink/stream_storage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/poll_interval.h"
#include "base/retry.h"

namespace vc::copy {

StreamStorage::StreamStorage(int fd, std::string name, std::vector<std::byte> start,
                             const Stop& stop)
    : name_(std::move(name)), start_(std::move(start)), stop_(stop), fd_(fd) {
  // Reopens a pipe, so that O_NONBLOCK affects only our descriptor: the given one may be shared.
  struct stat status {};
  if (retry(::fstat, fd, &status) != 0 || !S_ISFIFO(status.st_mode)) return;
  own_.reset(retry(::open, fmt::format("/proc/self/fd/{}", fd).c_str(),
                   O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  if (own_) fd_ = own_.get();
}

Result<void> StreamStorage::send(std::span<const std::byte> bytes) {
  position_ += bytes.size();
  while (!bytes.empty()) {
    if (stop_.requested()) return fail(Error::cancelled());
    const ssize_t put = ::write(fd_, bytes.data(), bytes.size());
    if (put > 0) {
      bytes = bytes.subspan(static_cast<size_t>(put));
    } else if (put < 0 && errno == EAGAIN) {
      pollfd writable{fd_, POLLOUT, 0};
      ::poll(&writable, 1, static_cast<int>(kPollInterval.count()));
    } else if (put < 0 && errno == EPIPE) {
      return fail(Error::protocol(EPIPE, name_ + ": the reader has closed the pipe"));
    } else if (put < 0 && errno != EINTR) {
      return fail(Error::system(errno, name_ + ": write"));
    }
  }
  return {};
}

Result<void> StreamStorage::send_zeros(uint64_t length) {
  static constexpr std::array<std::byte, 65536> kZeros{};
  while (length > 0) {
    const uint64_t part = std::min<uint64_t>(length, kZeros.size());
    RETURN_IF_ERROR(send(std::span(kZeros).first(part)));
    length -= part;
  }
  return {};
}

Result<void> StreamStorage::send_waiting() {
  if (position_ == 0 && !start_.empty()) RETURN_IF_ERROR(send(start_));
  for (auto it = waiting_.begin(); it != waiting_.end() && it->first == position_;
       it = waiting_.erase(it)) {
    const Piece& piece = it->second;
    RETURN_IF_ERROR(piece.bytes.empty() ? send_zeros(piece.length) : send(piece.bytes));
  }
  return {};
}

Result<void> StreamStorage::write(HostOffset at, std::span<const std::byte> from) {
  if (from.empty()) return {};
  const MutexLock lock(mutex_);
  if (at.value() == 0 && !start_.empty()) {
    const bool same =
        from.size() == start_.size() && std::memcmp(from.data(), start_.data(), from.size()) == 0;
    return same ? Result<void>{}
                : fail(Error::invalid(
                      name_ +
                      ": the source has changed during the copy: discard the data that was sent"));
  }
  RETURN_IF_ERROR(send_waiting());
  if (at.value() == position_) {
    RETURN_IF_ERROR(send(from));
    return send_waiting();
  }
  waiting_.emplace(at.value(), Piece{{from.begin(), from.end()}, from.size()});
  return {};
}

Result<void> StreamStorage::write_zeroes(HostOffset at, uint64_t length) {
  if (length == 0) return {};
  const MutexLock lock(mutex_);
  waiting_.emplace(at.value(), Piece{{}, length});
  return send_waiting();
}

Result<void> StreamStorage::resize(uint64_t size) {
  const MutexLock lock(mutex_);
  RETURN_IF_ERROR(send_waiting());
  if (position_ == size && waiting_.empty()) return {};
  return fail(Error::invalid(fmt::format(
      "{}: the source has changed during the copy: it has no data for {:#x}", name_, position_)));
}

Result<uint64_t> StreamStorage::size() const {
  const MutexLock lock(mutex_);
  return position_;
}

Result<size_t> StreamStorage::read(HostOffset /*at*/, std::span<std::byte> /*to*/) const {
  return fail(Error::system(ESPIPE, name_ + ": read"));
}

Result<Storage::Run> StreamStorage::run_at(HostOffset /*at*/, uint64_t limit) const {
  return Run{limit, true};
}

Result<void> DryStorage::write(HostOffset at, std::span<const std::byte> from) {
  if (at.value() < start_.size())
    std::copy_n(from.begin(), std::min<uint64_t>(from.size(), start_.size() - at.value()),
                start_.begin() + static_cast<ptrdiff_t>(at.value()));
  return {};
}

Result<void> DryStorage::resize(uint64_t size) {
  size_ = size;
  return {};
}

Result<size_t> DryStorage::read(HostOffset /*at*/, std::span<std::byte> /*to*/) const {
  return fail(Error::system(ESPIPE, name_ + ": read"));
}

Result<Storage::Run> DryStorage::run_at(HostOffset /*at*/, uint64_t limit) const {
  return Run{limit, true};
}

}  // namespace vc::copy
