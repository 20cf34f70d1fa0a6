// Is loaded before the C library (LD_PRELOAD), and changes the calls that clone ranges of files.
//
//     VIRT_COMPACT_CLONES=fail:N:ERRNO   the N-th clone (from 1) and all later ones fail with ERRNO
//     VIRT_COMPACT_CLONES=once:N:ERRNO   only the N-th one
//     VIRT_COMPACT_CLONES=wrong:N        the N-th clone takes the blocks after its range, or
//                                        the next one for which that makes a difference
//     VIRT_COMPACT_CLONES=copy           bytes are copied, and no blocks are shared
#include <dlfcn.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

struct CloneFault {
  char kind[16] = "";
  unsigned long number = 0;
  int errnum = 0;

  CloneFault() {
    if (const char* const text = std::getenv("VIRT_COMPACT_CLONES"))
      if (std::sscanf(text, "%15[a-z]:%lu:%d", kind, &number, &errnum) < 1) std::abort();
  }
  bool is(const char* name) const { return std::strcmp(kind, name) == 0; }
};

int copy_bytes(int to, const file_clone_range& range) {
  char bytes[4096];
  for (uint64_t done = 0; done < range.src_length; done += sizeof bytes) {
    const size_t length = std::min<uint64_t>(sizeof bytes, range.src_length - done);
    if (::pread(static_cast<int>(range.src_fd), bytes, length,
                static_cast<off_t>(range.src_offset + done)) != static_cast<ssize_t>(length)) {
      errno = EINVAL;
      return -1;
    }
    if (::pwrite(to, bytes, length, static_cast<off_t>(range.dest_offset + done)) < 0) return -1;
  }
  return 0;
}

// Returns true if the bytes after a range differ from those of the range, in its first block.
bool is_followed_by_other_bytes(const file_clone_range& range) {
  char bytes[4096];
  char next[sizeof bytes];
  const auto fd = static_cast<int>(range.src_fd);
  const uint64_t end = range.src_offset + range.src_length;
  struct stat status {};
  return ::fstat(fd, &status) == 0 &&
         end + range.src_length <= static_cast<uint64_t>(status.st_size) &&
         ::pread(fd, bytes, sizeof bytes, static_cast<off_t>(range.src_offset)) == sizeof bytes &&
         ::pread(fd, next, sizeof next, static_cast<off_t>(end)) == sizeof next &&
         std::memcmp(bytes, next, sizeof bytes) != 0;
}

}  // namespace

EXPORTED int ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void* const argument = va_arg(list, void*);
  va_end(list);
  static const auto real =
      reinterpret_cast<int (*)(int, unsigned long, ...)>(::dlsym(RTLD_NEXT, "ioctl"));
  if (request != FICLONERANGE) return real(fd, request, argument);
  static const CloneFault fault;
  static std::atomic<unsigned long> calls;
  const unsigned long number = ++calls;
  if ((fault.is("fail") && number >= fault.number) ||
      (fault.is("once") && number == fault.number)) {
    errno = fault.errnum;
    return -1;
  }
  if (fault.is("copy")) return copy_bytes(fd, *static_cast<file_clone_range*>(argument));
  if (fault.is("wrong") && number >= fault.number) {
    static std::atomic<bool> done;
    const auto& range = *static_cast<file_clone_range*>(argument);
    if (is_followed_by_other_bytes(range) && !done.exchange(true)) {
      file_clone_range other = range;
      other.src_offset += other.src_length;
      return real(fd, request, &other);
    }
  }
  return real(fd, request, argument);
}
