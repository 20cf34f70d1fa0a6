#include "storage/directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/retry.h"

namespace vc {

Result<FileIdentity> FileIdentity::at(const std::string& path) {
  struct stat status {};
  if (retry(::stat, path.c_str(), &status) != 0) return fail(Error::system(errno, path));
  return of(status);
}

std::optional<FileIdentity> FileIdentity::of(int fd) {
  struct stat status {};
  if (retry(::fstat, fd, &status) != 0) return std::nullopt;
  return of(status);
}

std::string path_of_descriptor(int fd) {
  return fmt::format("/proc/self/fd/{}", fd);
}

std::string path_of_descriptor(int fd, pid_t pid) {
  return fmt::format("/proc/{}/fd/{}", pid, fd);
}

std::string Directory::parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string Directory::name_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

std::string Directory::path_to(const std::string& name) const {
  return path_ == "/" ? "/" + name : fmt::format("{}/{}", path_, name);
}

Result<Directory> Directory::open(const std::string& path) {
  Descriptor fd(retry(::open, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail(Error::system(errno, path));
  return Directory(path, std::move(fd));
}

Result<Descriptor> Directory::open_file(const std::string& name, int flags, mode_t mode) const {
  Descriptor file(
      retry(::openat, fd(), name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, mode));
  if (!file) return fail(Error::system(errno, path_to(name)));
  return file;
}

Result<Descriptor> Directory::open_unnamed(mode_t mode) const {
  Descriptor file(retry(::openat, fd(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode));
  if (!file) return fail(Error::system(errno, path_));
  return file;
}

std::optional<struct stat> Directory::status(const std::string& name) const {
  struct stat status {};
  if (retry(::fstatat, fd(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  return status;
}

bool Directory::holds(const std::string& name, const std::optional<FileIdentity>& file) const {
  const auto there = status(name);
  return there && file && FileIdentity::of(*there) == *file;
}

Result<void> Directory::link(int fd, const std::string& name) const {
  if (retry(::linkat, AT_FDCWD, path_of_descriptor(fd).c_str(), this->fd(), name.c_str(),
            AT_SYMLINK_FOLLOW) != 0)
    return fail(Error::system(errno, path_to(name) + ": give the file this name"));
  return {};
}

Result<void> Directory::rename(const std::string& from, const std::string& to,
                               unsigned flags) const {
  // Every filesystem supports the older renameat.
  const int failed = flags == 0 ? retry(::renameat, fd(), from.c_str(), fd(), to.c_str())
                                : retry(::renameat2, fd(), from.c_str(), fd(), to.c_str(), flags);
  if (failed == 0) return {};
  return fail(Error::system(errno, fmt::format("{}: rename to {}", path_to(from), path_to(to))));
}

Result<void> Directory::remove(const std::string& name) const {
  if (retry(::unlinkat, fd(), name.c_str(), 0) != 0)
    return fail(Error::system(errno, path_to(name) + ": remove"));
  return {};
}

Result<void> Directory::flush() const {
  if (retry(::fsync, fd()) == 0 || errno == EINVAL) return {};
  return fail(Error::system(errno, path_ + ": flush to disk"));
}

}  // namespace vc
