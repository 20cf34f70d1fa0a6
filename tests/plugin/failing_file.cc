// Is loaded before the C library in a server (LD_PRELOAD). Calls that change or read an image fail
// when the test requests it. Flushes succeed: tests/faults tests failed flushes, which have
// permanent effects.
#include "tests/plugin/failing_file.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string_view>

using namespace vc;

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

test::Faults* map_faults() {
  const char* const path = std::getenv("VIRT_COMPACT_FAULTS");
  if (!path) return nullptr;
  const int fd = ::open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return nullptr;
  void* const at = ::mmap(nullptr, sizeof(test::Faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return at == MAP_FAILED ? nullptr : static_cast<test::Faults*>(at);
}

bool is_image(int fd) {
  char link[64];
  char path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = ::readlink(link, path, sizeof path);
  return length > 0 && std::string_view(path, static_cast<size_t>(length)).ends_with(".qcow2");
}

enum class Fate { kWorks, kInPart, kFails };

// If the disk is full, the first failing call does half of its work.
Fate fate(int fd, bool reads) {
  static test::Faults* const faults = map_faults();
  const int saved = errno;
  if (!faults || faults->error == 0 || (reads && !faults->reads) || !is_image(fd)) {
    errno = saved;
    return Fate::kWorks;
  }
  errno = saved;
  const int64_t left = faults->good_calls.fetch_sub(1);
  if (left > 0) return Fate::kWorks;
  if (left == 0 && faults->error == ENOSPC) return Fate::kInPart;
  ++faults->failed;
  errno = faults->error;
  return Fate::kFails;
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

// The C library's names of parameters are reserved for it.
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
EXPORTED ssize_t pwrite64(int fd, const void* from, size_t size, off64_t at) {
  static const auto real = next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  switch (fate(fd, false)) {
    case Fate::kWorks:
      return real(fd, from, size, at);
    case Fate::kInPart:
      return real(fd, from, size > 1 ? size / 2 : size, at);
    case Fate::kFails:
      break;
  }
  return -1;
}

EXPORTED ssize_t pwritev64(int fd, const iovec* from, int count, off64_t at) {
  static const auto real = next<ssize_t(int, const iovec*, int, off64_t)>("pwritev64");
  return fate(fd, false) == Fate::kFails ? -1 : real(fd, from, count, at);
}

EXPORTED ssize_t pread64(int fd, void* to, size_t size, off64_t at) {
  static const auto real = next<ssize_t(int, void*, size_t, off64_t)>("pread64");
  return fate(fd, true) == Fate::kFails ? -1 : real(fd, to, size, at);
}

EXPORTED int fallocate64(int fd, int mode, off64_t at, off64_t length) {
  static const auto real = next<int(int, int, off64_t, off64_t)>("fallocate64");
  return fate(fd, false) == Fate::kFails ? -1 : real(fd, mode, at, length);
}

EXPORTED int ftruncate64(int fd, off64_t length) noexcept {
  static const auto real = next<int(int, off64_t)>("ftruncate64");
  return fate(fd, false) == Fate::kFails ? -1 : real(fd, length);
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
