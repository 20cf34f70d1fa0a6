// Is loaded before the C library (LD_PRELOAD). Simulates a filesystem without hard links and
// without unnamed files. With VIRT_COMPACT_NO_FLAGS, renames accept no flags either.
#include <dlfcn.h>
#include <fcntl.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

using Open = int (*)(const char*, int, ...);
using OpenAt = int (*)(int, const char*, int, ...);
using Rename = int (*)(int, const char*, int, const char*, unsigned);

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

bool has_no_name(int flags) {
  errno = EOPNOTSUPP;
  return (flags & O_TMPFILE) == O_TMPFILE;
}

mode_t mode_of(int flags, va_list list) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

}  // namespace

// The C library reserves the names of its functions, and those of their parameters, for itself.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming,readability-inconsistent-declaration-parameter-name)

EXPORTED int link(const char* /*from*/, const char* /*to*/) {
  errno = EPERM;
  return -1;
}

EXPORTED int linkat(int /*from*/, const char* /*name*/, int /*to*/, const char* /*other*/,
                    int /*flags*/) {
  errno = EPERM;
  return -1;
}

// The names to which the C library's headers map the calls: open64 and openat64.
EXPORTED int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return has_no_name(flags) ? -1 : next<Open>("open64")(path, flags, mode);
}

EXPORTED int openat(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return has_no_name(flags) ? -1 : next<OpenAt>("openat64")(folder, path, flags, mode);
}

// Replaces calls without a mode when _FORTIFY_SOURCE is used and the compiler does not know their
// flags.
EXPORTED int __open64_2(const char* path, int flags) {
  return open(path, flags);
}

EXPORTED int __openat64_2(int folder, const char* path, int flags) {
  return openat(folder, path, flags);
}

EXPORTED int renameat2(int from, const char* name, int to, const char* other, unsigned flags) {
  if (flags != 0 && std::getenv("VIRT_COMPACT_NO_FLAGS")) {
    errno = EINVAL;
    return -1;
  }
  return next<Rename>("renameat2")(from, name, to, other, flags);
}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
