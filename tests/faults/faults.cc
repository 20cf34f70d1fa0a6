// Is loaded before the C library (LD_PRELOAD), and makes one call fail.
//
//     VIRT_COMPACT_FAULT_FOLDER=PATH     counts only calls that concern files in this folder
//     VIRT_COMPACT_FAULT=KIND:N:ERRNO    the N-th call of this kind (from 1) fails with this errno
//     VIRT_COMPACT_FAULT_SIGNAL=NUMBER   instead, the call succeeds and the process gets the signal
//     VIRT_COMPACT_FAULT_REPORT=FILE     gets a line "KIND N" for each counted call, followed by
//                                        "failed" for the failed call
//
// kKinds lists the kinds. "link" includes the removal of names; "space" is fallocate and ftruncate.
// The creation of threads is counted only if one of them must fail.
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

constexpr const char* kKinds[] = {"open", "read",  "write", "sync",  "rename",
                                  "link", "space", "lock",  "thread"};

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

struct Plan {
  char kind[16] = "";
  unsigned long number = 0;
  int errnum = 0;
  int signal = 0;
  const char* folder = nullptr;
  int report = -1;

  Plan() {
    folder = std::getenv("VIRT_COMPACT_FAULT_FOLDER");
    if (const char* const text = std::getenv("VIRT_COMPACT_FAULT"))
      if (std::sscanf(text, "%15[a-z]:%lu:%d", kind, &number, &errnum) != 3) std::abort();
    if (const char* const text = std::getenv("VIRT_COMPACT_FAULT_SIGNAL")) signal = std::atoi(text);
    if (const char* const path = std::getenv("VIRT_COMPACT_FAULT_REPORT"))
      report = static_cast<int>(
          ::syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  }
};

const Plan& plan() {
  static const Plan it;
  return it;
}

bool is_in_folder(const char* path) {
  const char* const folder = plan().folder;
  return folder && std::strncmp(path, folder, std::strlen(folder)) == 0;
}

// Returns true if a link in /proc leads into the folder.
bool leads_into_folder(const char* link) {
  char path[PATH_MAX] = "";
  return ::readlink(link, path, sizeof path - 1) > 0 && is_in_folder(path);
}

bool concerns(int fd) {
  char link[64] = "";
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  return leads_into_folder(link);
}

bool concerns(int folder, const char* path) {
  if (std::strncmp(path, "/proc/", 6) == 0) return leads_into_folder(path);
  if (path[0] == '/') return is_in_folder(path);
  if (folder == AT_FDCWD) return leads_into_folder("/proc/self/cwd");
  return concerns(folder);
}

// Counts a call. Returns true, and sets errno, if the call must fail.
bool fails(const char* kind, bool concerned) {
  static std::atomic<unsigned long> counted[std::size(kKinds)];
  const int before = errno;
  if (!concerned) {
    errno = before;
    return false;
  }
  size_t index = 0;
  while (std::strcmp(kKinds[index], kind) != 0) ++index;
  const unsigned long number = ++counted[index];
  const bool chosen = std::strcmp(plan().kind, kind) == 0 && plan().number == number;
  char line[64] = "";
  const int length =
      std::snprintf(line, sizeof line, "%s %lu%s\n", kind, number, chosen ? " failed" : "");
  if (plan().report >= 0)
    (void)!::syscall(SYS_write, plan().report, line, static_cast<size_t>(length));
  if (chosen && plan().signal != 0) {
    ::kill(::getpid(), plan().signal);
    errno = before;
    return false;
  }
  errno = chosen ? plan().errnum : before;
  return chosen;
}

mode_t mode_of(int flags, va_list list) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

}  // namespace

// The C library reserves the names of its functions, and those of their parameters, for itself.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming,readability-inconsistent-declaration-parameter-name)

// The names to which the C library's headers map the calls of the program: open64 for open.
EXPORTED int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  if (fails("open", concerns(AT_FDCWD, path))) return -1;
  static const auto real = next<int (*)(const char*, int, ...)>("open64");
  return real(path, flags, mode);
}

EXPORTED int openat(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  if (fails("open", concerns(folder, path))) return -1;
  static const auto real = next<int (*)(int, const char*, int, ...)>("openat64");
  return real(folder, path, flags, mode);
}

// Replaces calls without a mode when _FORTIFY_SOURCE is used and the compiler does not know their
// flags.
EXPORTED int __open64_2(const char* path, int flags) {
  return open(path, flags);
}

EXPORTED int __openat64_2(int folder, const char* path, int flags) {
  return openat(folder, path, flags);
}

EXPORTED ssize_t read(int fd, void* to, size_t length) {
  if (fails("read", concerns(fd))) return -1;
  static const auto real = next<ssize_t (*)(int, void*, size_t)>("read");
  return real(fd, to, length);
}

EXPORTED ssize_t pread(int fd, void* to, size_t length, off_t at) {
  if (fails("read", concerns(fd))) return -1;
  static const auto real = next<ssize_t (*)(int, void*, size_t, off_t)>("pread64");
  return real(fd, to, length, at);
}

EXPORTED ssize_t write(int fd, const void* from, size_t length) {
  if (fails("write", concerns(fd))) return -1;
  static const auto real = next<ssize_t (*)(int, const void*, size_t)>("write");
  return real(fd, from, length);
}

EXPORTED ssize_t pwrite(int fd, const void* from, size_t length, off_t at) {
  if (fails("write", concerns(fd))) return -1;
  static const auto real = next<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite64");
  return real(fd, from, length, at);
}

EXPORTED ssize_t pwritev(int fd, const iovec* pieces, int count, off_t at) {
  if (fails("write", concerns(fd))) return -1;
  static const auto real = next<ssize_t (*)(int, const iovec*, int, off_t)>("pwritev64");
  return real(fd, pieces, count, at);
}

EXPORTED int fsync(int fd) {
  if (fails("sync", concerns(fd))) return -1;
  static const auto real = next<int (*)(int)>("fsync");
  return real(fd);
}

EXPORTED int fdatasync(int fd) {
  if (fails("sync", concerns(fd))) return -1;
  static const auto real = next<int (*)(int)>("fdatasync");
  return real(fd);
}

EXPORTED int renameat(int from, const char* name, int to, const char* other) {
  if (fails("rename", concerns(to, other))) return -1;
  static const auto real = next<int (*)(int, const char*, int, const char*)>("renameat");
  return real(from, name, to, other);
}

EXPORTED int renameat2(int from, const char* name, int to, const char* other, unsigned flags) {
  if (fails("rename", concerns(to, other))) return -1;
  static const auto real = next<int (*)(int, const char*, int, const char*, unsigned)>("renameat2");
  return real(from, name, to, other, flags);
}

EXPORTED int linkat(int from, const char* name, int to, const char* other, int flags) {
  if (fails("link", concerns(to, other))) return -1;
  static const auto real = next<int (*)(int, const char*, int, const char*, int)>("linkat");
  return real(from, name, to, other, flags);
}

EXPORTED int unlinkat(int folder, const char* name, int flags) {
  if (fails("link", concerns(folder, name))) return -1;
  static const auto real = next<int (*)(int, const char*, int)>("unlinkat");
  return real(folder, name, flags);
}

EXPORTED int fallocate(int fd, int mode, off_t at, off_t length) {
  if (fails("space", concerns(fd))) return -1;
  static const auto real = next<int (*)(int, int, off_t, off_t)>("fallocate64");
  return real(fd, mode, at, length);
}

EXPORTED int ftruncate(int fd, off_t length) {
  if (fails("space", concerns(fd))) return -1;
  static const auto real = next<int (*)(int, off_t)>("ftruncate64");
  return real(fd, length);
}

EXPORTED int flock(int fd, int operation) {
  if (fails("lock", concerns(fd))) return -1;
  static const auto real = next<int (*)(int, int)>("flock");
  return real(fd, operation);
}

EXPORTED int fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* const argument = va_arg(list, void*);
  va_end(list);
  const bool locks = command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK;
  if (locks && fails("lock", concerns(fd))) return -1;
  static const auto real = next<int (*)(int, int, ...)>("fcntl64");
  return real(fd, command, argument);
}

EXPORTED int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                            void* (*start)(void*), void* argument) {
  if (fails("thread", std::strcmp(plan().kind, "thread") == 0)) return errno;
  static const auto real =
      next<int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>("pthread_create");
  return real(thread, attributes, start, argument);
}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
