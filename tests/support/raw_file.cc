#include "tests/support/raw_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace vc::support {

namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

// Size of the pieces that are compared, bytes.
constexpr uint64_t kPiece = 1 << 20;

void write_all(const std::string& path, int flags, uint64_t at, std::span<const std::byte> bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666);
  if (fd < 0) fail(path);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put =
        ::pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(at + done));
    if (put < 0) {
      ::close(fd);
      fail(path);
    }
    done += static_cast<size_t>(put);
  }
  if (::close(fd) != 0) fail(path);
}

}  // namespace

RawFile::RawFile(const std::string& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail(path);
  struct stat status {};
  if (::fstat(fd_, &status) != 0) {
    ::close(fd_);
    fail(path);
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

RawFile::~RawFile() {
  ::close(fd_);
}

void RawFile::read(uint64_t at, std::span<std::byte> to) const {
  size_t done = 0;
  while (done < to.size()) {
    const ssize_t got =
        ::pread(fd_, to.data() + done, to.size() - done, static_cast<off_t>(at + done));
    if (got < 0) fail(path_);
    if (got == 0)
      throw std::runtime_error(
          fmt::format("{}: ends at {}, read up to {}", path_, at + done, at + to.size()));
    done += static_cast<size_t>(got);
  }
}

std::vector<std::byte> RawFile::read(uint64_t at, uint64_t length) const {
  std::vector<std::byte> bytes(length);
  read(at, bytes);
  return bytes;
}

std::optional<RawFile::Run> RawFile::next_data(uint64_t at, uint64_t end) const {
  end = std::min(end, size_);
  if (at >= end) return std::nullopt;
  const off_t data = ::lseek(fd_, static_cast<off_t>(at), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return std::nullopt;
  if (data < 0) fail(path_);
  if (static_cast<uint64_t>(data) >= end) return std::nullopt;
  const off_t hole = ::lseek(fd_, data, SEEK_HOLE);
  if (hole < 0) fail(path_);
  return Run{static_cast<uint64_t>(data), std::min(end, static_cast<uint64_t>(hole))};
}

std::optional<uint64_t> RawFile::first_nonzero(uint64_t at, uint64_t length) const {
  const uint64_t end = at + length;
  while (const auto run = next_data(at, end)) {
    for (at = run->begin; at < run->end; at += kPiece) {
      const auto bytes = read(at, std::min(kPiece, run->end - at));
      const auto found = std::find_if(bytes.begin(), bytes.end(),
                                      [](std::byte byte) { return byte != std::byte{0}; });
      if (found != bytes.end()) return at + static_cast<uint64_t>(found - bytes.begin());
    }
    at = run->end;
  }
  return std::nullopt;
}

std::optional<uint64_t> first_difference(const std::string& a, const std::string& b) {
  const RawFile first(a);
  const RawFile second(b);
  const uint64_t size = std::min(first.size(), second.size());
  uint64_t at = 0;
  while (at < size) {
    // Ranges that are holes in both files are skipped.
    const auto one = first.next_data(at, size);
    const auto other = second.next_data(at, size);
    if (!one && !other) break;
    at = std::min(one ? one->begin : size, other ? other->begin : size);
    const uint64_t length = std::min(kPiece, size - at);
    const auto left = first.read(at, length);
    const auto right = second.read(at, length);
    const auto differ = std::mismatch(left.begin(), left.end(), right.begin());
    if (differ.first != left.end()) return at + static_cast<uint64_t>(differ.first - left.begin());
    at += length;
  }
  if (first.size() != second.size()) return size;
  return std::nullopt;
}

std::vector<std::byte> read_file(const std::string& path) {
  const RawFile file(path);
  return file.read(0, file.size());
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  write_all(path, O_CREAT | O_TRUNC, 0, bytes);
}

void write_file(const std::string& path, const std::string& text) {
  write_file(path, std::as_bytes(std::span(text)));
}

void patch_file(const std::string& path, uint64_t at, std::span<const std::byte> bytes) {
  write_all(path, 0, at, bytes);
}

void resize_file(const std::string& path, uint64_t size) {
  if (::truncate(path.c_str(), static_cast<off_t>(size)) != 0) fail(path);
}

}  // namespace vc::support
