// Is loaded before the C library in the command (LD_PRELOAD). Acts as another process that changes
// the same folder: at one moment, and once, gives a file another name.
//
//     VIRT_COMPACT_PLANT_FROM=PATH  the file
//     VIRT_COMPACT_PLANT_TO=PATH    its new name
//     VIRT_COMPACT_MOMENT=MOMENT    opening, opened: before and after the call that opens the name
//                                   VIRT_COMPACT_OPENED of a folder
//                                   resolving: before symbolic links are followed
//                                   linked: after a hard link was made
//                                   renamed: after a rename
//                                   exchanging, exchanged: before and after two names change places
//                                   flushed: after a folder was flushed
//     VIRT_COMPACT_NO_EXCHANGE=1    the filesystem cannot exchange two names
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

using OpenAt = int (*)(int, const char*, int, ...);
using Link = int (*)(int, const char*, int, const char*, int);
using Rename = int (*)(int, const char*, int, const char*);
using Rename2 = int (*)(int, const char*, int, const char*, unsigned);
using Resolve = char* (*)(const char*, char*);
using Sync = int (*)(int);

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

void reach(const char* moment) {
  static bool planted = false;
  const char* const when = std::getenv("VIRT_COMPACT_MOMENT");
  const char* const from = std::getenv("VIRT_COMPACT_PLANT_FROM");
  const char* const to = std::getenv("VIRT_COMPACT_PLANT_TO");
  if (planted || !when || !from || !to || std::strcmp(when, moment) != 0) return;
  const int before = errno;
  planted = true;
  if (next<Rename>("renameat")(AT_FDCWD, from, AT_FDCWD, to) != 0) std::abort();
  errno = before;
}

bool is_waited_for(const char* name) {
  const char* const wanted = std::getenv("VIRT_COMPACT_OPENED");
  return wanted && std::strcmp(name, wanted) == 0;
}

}  // namespace

// The C library reserves the names of its functions, and those of their parameters, for itself.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming,readability-inconsistent-declaration-parameter-name)

EXPORTED int openat(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const bool has_mode = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
  const mode_t mode = has_mode ? va_arg(list, mode_t) : 0;
  va_end(list);
  if (is_waited_for(path)) reach("opening");
  const int fd = next<OpenAt>("openat64")(folder, path, flags, mode);
  if (is_waited_for(path)) reach("opened");
  return fd;
}

// Replaces calls without a mode when _FORTIFY_SOURCE is used and the compiler does not know their
// flags.
EXPORTED int __openat64_2(int folder, const char* path, int flags) {
  return openat(folder, path, flags);
}

EXPORTED char* realpath(const char* path, char* resolved) {
  reach("resolving");
  return next<Resolve>("realpath")(path, resolved);
}

EXPORTED int linkat(int from, const char* name, int to, const char* other, int flags) {
  const int failed = next<Link>("linkat")(from, name, to, other, flags);
  if (failed == 0) reach("linked");
  return failed;
}

EXPORTED int renameat(int from, const char* name, int to, const char* other) {
  const int failed = next<Rename>("renameat")(from, name, to, other);
  if (failed == 0) reach("renamed");
  return failed;
}

EXPORTED int renameat2(int from, const char* name, int to, const char* other, unsigned flags) {
  if ((flags & RENAME_EXCHANGE) != 0 && std::getenv("VIRT_COMPACT_NO_EXCHANGE")) {
    errno = EINVAL;
    return -1;
  }
  const bool exchange = (flags & RENAME_EXCHANGE) != 0;
  if (exchange) reach("exchanging");
  const int failed = next<Rename2>("renameat2")(from, name, to, other, flags);
  if (failed == 0) reach(exchange ? "exchanged" : "renamed");
  return failed;
}

EXPORTED int fsync(int fd) {
  const int failed = next<Sync>("fsync")(fd);
  struct stat status {};
  if (::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) reach("flushed");
  return failed;
}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
