#include "storage/page_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/retry.h"
#include "base/rounding.h"
#include "storage/descriptor.h"

namespace vc {

namespace {

constexpr uint64_t kWindow = 64 << 20;  // bytes checked per mapping
constexpr uint64_t kWindows = 256;      // longer files are sampled at this many places

Descriptor open_to_read(const std::string& path) {
  return Descriptor(retry(::open, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

// Returns the cached bytes of [at, at + length); nullopt if unknown.
std::optional<uint64_t> cached_in(int fd, uint64_t at, uint64_t length) {
  const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  void* const mapped = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(at));
  if (mapped == MAP_FAILED) return std::nullopt;
  std::vector<unsigned char> present(divide_up(length, page));
  const int got = ::mincore(mapped, length, present.data());
  ::munmap(mapped, length);
  if (got != 0) return std::nullopt;
  const auto pages =
      std::count_if(present.begin(), present.end(), [](unsigned char it) { return (it & 1) != 0; });
  return std::min(static_cast<uint64_t>(pages) * page, length);
}

}  // namespace

std::optional<CachedPages> cached_pages(const std::string& path) {
  const Descriptor file = open_to_read(path);
  struct stat status {};
  if (!file || retry(::fstat, file.get(), &status) != 0 || !S_ISREG(status.st_mode))
    return std::nullopt;
  // For files that this process cannot write, the kernel reports all pages as cached.
  if (status.st_uid != ::geteuid() && ::access(path.c_str(), W_OK) != 0) return std::nullopt;
  CachedPages pages;
  pages.length = static_cast<uint64_t>(status.st_size);
  const uint64_t windows = divide_up(pages.length, kWindow);
  const uint64_t looked_at = std::min(windows, kWindows);
  pages.sampled = looked_at < windows;
  uint64_t seen = 0;
  for (uint64_t i = 0; i < looked_at; ++i) {
    const uint64_t at = (pages.sampled ? i * (windows - 1) / (looked_at - 1) : i) * kWindow;
    const uint64_t length = std::min(kWindow, pages.length - at);
    const auto cached = cached_in(file.get(), at, length);
    if (!cached) return std::nullopt;
    pages.cached += *cached;
    seen += length;
  }
  if (pages.sampled)
    pages.cached =
        static_cast<uint64_t>(static_cast<double>(pages.cached) / static_cast<double>(seen) *
                              static_cast<double>(pages.length));
  return pages;
}

Result<void> drop_pages(const std::string& path) {
  const Descriptor file = open_to_read(path);
  if (!file) return fail(Error::system(errno, path));
  // Dirty pages would stay.
  if (retry(::fdatasync, file.get()) != 0 && errno != EINVAL && errno != EROFS)
    return fail(Error::system(errno, path + ": flush"));
  const int errnum = ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  if (errnum != 0) return fail(Error::system(errnum, path + ": drop cached pages"));
  return {};
}

}  // namespace vc
