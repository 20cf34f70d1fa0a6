// Stands before the C library in the command (LD_PRELOAD), as another process that changes the same
// folder: at one moment the file "planted" in it gets another name.
//
//     VIRT_COMPACT_PLANT=NAME      the name that it gets
//     VIRT_COMPACT_MOMENT=MOMENT   opened: a name that ends with .bak has just been opened
//                                  renaming: the first name is about to change
//                                  flushed: the folder has just been flushed for the first time
//     VIRT_COMPACT_NO_EXCHANGE=1   the filesystem cannot exchange two names
#include <dlfcn.h>
#include <fcntl.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

using OpenAt = int (*)(int, const char*, int, ...);
using Rename = int (*)(int, const char*, int, const char*, unsigned);
using Sync = int (*)(int);

// The folder in which the names are.
int watched = -1;

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

void plant_at(const char* moment) {
  const char* const when = std::getenv("VIRT_COMPACT_MOMENT");
  const char* const name = std::getenv("VIRT_COMPACT_PLANT");
  if (!when || !name || watched < 0 || std::strcmp(when, moment) != 0) return;
  const int before = errno;
  // Once: then there is no such file any more.
  (void)next<Rename>("renameat2")(watched, "planted", watched, name, 0);
  errno = before;
}

bool is_backup(const char* path) {
  const size_t length = std::strlen(path);
  return length > 4 && std::strcmp(path + length - 4, ".bak") == 0;
}

}  // namespace

EXPORTED int openat(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const bool has_mode = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
  const mode_t mode = has_mode ? va_arg(list, mode_t) : 0;
  va_end(list);
  const int fd = next<OpenAt>("openat64")(folder, path, flags, mode);
  if (fd >= 0 && is_backup(path)) {
    watched = folder;
    plant_at("opened");
  }
  return fd;
}

// What _FORTIFY_SOURCE makes of calls without a mode whose flags the compiler cannot see.
EXPORTED int __openat64_2(int folder, const char* path, int flags) {
  return openat(folder, path, flags);
}

EXPORTED int renameat2(int from, const char* name, int to, const char* other, unsigned flags) {
  if ((flags & RENAME_EXCHANGE) != 0 && std::getenv("VIRT_COMPACT_NO_EXCHANGE")) {
    errno = EINVAL;
    return -1;
  }
  plant_at("renaming");
  return next<Rename>("renameat2")(from, name, to, other, flags);
}

EXPORTED int fsync(int fd) {
  const int failed = next<Sync>("fsync")(fd);
  if (fd == watched) plant_at("flushed");
  return failed;
}
