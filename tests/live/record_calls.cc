// Is loaded before the C library in the command (LD_PRELOAD). Records in which order the command
// changes files, flushes them, and lets libvirt or QEMU act.
//
//     VIRT_COMPACT_RECORD=FILE         gets a line for each call
//     VIRT_COMPACT_RECORD_FOLDER=PATH  only calls that concern this folder and its files count
//
// Lines. INODE is that of a file of the folder.
//
//     write INODE          its content, length or rights change
//     sync INODE
//     name NAME INODE      the file has got this name
//     remove NAME
//     sync folder
//     call NAME            a function of libvirt, or a command of QEMU, that changes something
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

// The process that guards the guest is not recorded.
const pid_t kProcess = ::getpid();

int open_record() {
  const char* const path = std::getenv("VIRT_COMPACT_RECORD");
  if (!path) return -1;
  return static_cast<int>(
      ::syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
}

void record(const std::string& line) {
  static const int file = open_record();
  if (file < 0 || ::getpid() != kProcess) return;
  const std::string text = line + "\n";
  (void)!::syscall(SYS_write, file, text.data(), text.size());
}

struct stat folder_status() {
  struct stat status {};
  const char* const folder = std::getenv("VIRT_COMPACT_RECORD_FOLDER");
  if (folder) (void)::stat(folder, &status);
  return status;
}

bool is_folder(int fd) {
  struct stat status {};
  const struct stat folder = folder_status();
  return ::fstat(fd, &status) == 0 && status.st_ino == folder.st_ino &&
         status.st_dev == folder.st_dev;
}

// Returns the inode of an open file of the folder; 0: it is none. A file may have no name yet.
ino_t inode_in_folder(int fd) {
  char link[64] = "";
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  char path[PATH_MAX] = "";
  if (::readlink(link, path, sizeof path - 1) <= 0) return 0;
  const char* const folder = std::getenv("VIRT_COMPACT_RECORD_FOLDER");
  struct stat status {};
  const size_t length = folder ? std::strlen(folder) : 0;
  const bool inside = folder && std::strncmp(path, folder, length) == 0 &&
                      std::strchr(path + length + 1, '/') == nullptr;
  return inside && path[length] == '/' && ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode)
             ? status.st_ino
             : 0;
}

void record_file(const char* what, int fd) {
  const ino_t inode = inode_in_folder(fd);
  if (inode != 0) record(std::string(what) + " " + std::to_string(inode));
}

void record_sync(int fd) {
  if (is_folder(fd))
    record("sync folder");
  else
    record_file("sync", fd);
}

// Records that `name` of the open folder refers to another file than before.
void record_name(int folder, const char* name) {
  struct stat status {};
  if (is_folder(folder) && ::fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
    record(std::string("name ") + name + " " + std::to_string(status.st_ino));
}

mode_t mode_of(int flags, va_list list) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

}  // namespace

// The names are those of the C library and of libvirt.
// NOLINTBEGIN(readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
EXPORTED int openat(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  const bool is_new = (flags & O_CREAT) != 0 && ::faccessat(folder, path, F_OK, 0) != 0;
  static const auto real = next<int (*)(int, const char*, int, ...)>("openat64");
  const int file = real(folder, path, flags, mode);
  if (is_new && file >= 0) record_name(folder, path);
  return file;
}

EXPORTED ssize_t write(int fd, const void* from, size_t length) {
  record_file("write", fd);
  static const auto real = next<ssize_t (*)(int, const void*, size_t)>("write");
  return real(fd, from, length);
}

EXPORTED ssize_t pwrite(int fd, const void* from, size_t length, off_t at) {
  record_file("write", fd);
  static const auto real = next<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite64");
  return real(fd, from, length, at);
}

EXPORTED ssize_t pwritev(int fd, const iovec* pieces, int count, off_t at) {
  record_file("write", fd);
  static const auto real = next<ssize_t (*)(int, const iovec*, int, off_t)>("pwritev64");
  return real(fd, pieces, count, at);
}

EXPORTED int fallocate(int fd, int mode, off_t at, off_t length) {
  record_file("write", fd);
  static const auto real = next<int (*)(int, int, off_t, off_t)>("fallocate64");
  return real(fd, mode, at, length);
}

EXPORTED int ftruncate(int fd, off_t length) {
  record_file("write", fd);
  static const auto real = next<int (*)(int, off_t)>("ftruncate64");
  return real(fd, length);
}

EXPORTED int fchown(int fd, uid_t user, gid_t group) {
  record_file("write", fd);
  static const auto real = next<int (*)(int, uid_t, gid_t)>("fchown");
  return real(fd, user, group);
}

EXPORTED int fsync(int fd) {
  static const auto real = next<int (*)(int)>("fsync");
  const int result = real(fd);
  if (result == 0) record_sync(fd);
  return result;
}

EXPORTED int fdatasync(int fd) {
  static const auto real = next<int (*)(int)>("fdatasync");
  const int result = real(fd);
  if (result == 0) record_sync(fd);
  return result;
}

EXPORTED int renameat(int from, const char* name, int to, const char* other) {
  static const auto real = next<int (*)(int, const char*, int, const char*)>("renameat");
  const int result = real(from, name, to, other);
  if (result == 0) record_name(to, other);
  return result;
}

EXPORTED int renameat2(int from, const char* name, int to, const char* other, unsigned flags) {
  static const auto real = next<int (*)(int, const char*, int, const char*, unsigned)>("renameat2");
  const int result = real(from, name, to, other, flags);
  if (result == 0) record_name(to, other);
  return result;
}

EXPORTED int linkat(int from, const char* name, int to, const char* other, int flags) {
  static const auto real = next<int (*)(int, const char*, int, const char*, int)>("linkat");
  const int result = real(from, name, to, other, flags);
  if (result == 0) record_name(to, other);
  return result;
}

EXPORTED int unlinkat(int folder, const char* name, int flags) {
  static const auto real = next<int (*)(int, const char*, int)>("unlinkat");
  const int result = real(folder, name, flags);
  if (result == 0 && is_folder(folder)) record(std::string("remove ") + name);
  return result;
}

EXPORTED ssize_t send(int socket, const void* bytes, size_t length, int flags) {
  const std::string text(static_cast<const char*>(bytes), length);
  constexpr std::string_view kKey = "\"execute\":\"";
  if (const size_t at = text.find(kKey); at != std::string::npos) {
    const size_t begin = at + kKey.size();
    const std::string command = text.substr(begin, text.find('"', begin) - begin);
    if (!command.starts_with("query-") && command != "qmp_capabilities") record("call " + command);
  }
  static const auto real = next<ssize_t (*)(int, const void*, size_t, int)>("send");
  return real(socket, bytes, length, flags);
}

EXPORTED void* virDomainSnapshotCreateXML(void* domain, const char* xml, unsigned flags) {
  record("call virDomainSnapshotCreateXML");
  static const auto real =
      next<void* (*)(void*, const char*, unsigned)>("virDomainSnapshotCreateXML");
  return real(domain, xml, flags);
}

EXPORTED int virDomainBlockCopy(void* domain, const char* disk, const char* xml, void* parameters,
                                int count, unsigned flags) {
  record("call virDomainBlockCopy");
  static const auto real =
      next<int (*)(void*, const char*, const char*, void*, int, unsigned)>("virDomainBlockCopy");
  return real(domain, disk, xml, parameters, count, flags);
}

EXPORTED int virDomainBlockCommit(void* domain, const char* disk, const char* base, const char* top,
                                  unsigned long bandwidth, unsigned flags) {
  record("call virDomainBlockCommit");
  static const auto real =
      next<int (*)(void*, const char*, const char*, const char*, unsigned long, unsigned)>(
          "virDomainBlockCommit");
  return real(domain, disk, base, top, bandwidth, flags);
}

EXPORTED int virDomainBlockJobAbort(void* domain, const char* disk, unsigned flags) {
  record("call virDomainBlockJobAbort");
  static const auto real = next<int (*)(void*, const char*, unsigned)>("virDomainBlockJobAbort");
  return real(domain, disk, flags);
}

EXPORTED int virDomainSuspend(void* domain) {
  record("call virDomainSuspend");
  static const auto real = next<int (*)(void*)>("virDomainSuspend");
  return real(domain);
}

EXPORTED int virDomainResume(void* domain) {
  record("call virDomainResume");
  static const auto real = next<int (*)(void*)>("virDomainResume");
  return real(domain);
}

EXPORTED void* virDomainDefineXML(void* connection, const char* xml) {
  record("call virDomainDefineXML");
  static const auto real = next<void* (*)(void*, const char*)>("virDomainDefineXML");
  return real(connection, xml);
}
// NOLINTEND(readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
