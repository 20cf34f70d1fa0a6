// An open folder and operations on the names in it.
//
// Other processes with write access to a folder can replace a file in it between two calls, or put
// a symbolic link there.  So a folder is opened once, its names are used relative to its
// descriptor, symbolic links are not followed, and each opened file is compared with the file that
// its name refers to.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "storage/descriptor.h"

namespace vc {

// Identifies a file: two names or descriptors with equal identities are the same file.
struct FileIdentity {
  dev_t device;
  ino_t inode;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;

  static FileIdentity of(const struct stat& status) { return {status.st_dev, status.st_ino}; }
  // Follows symbolic links.
  static Result<FileIdentity> at(const std::string& path);
  // Returns nullopt if `fd` is not open.
  static std::optional<FileIdentity> of(int fd);
};

// Returns a path of `fd` in /proc, valid while `fd` is open.  Without `pid` the path is valid in
// this process only; with `pid`, this process's ID, in other processes too.
std::string path_of_descriptor(int fd);
std::string path_of_descriptor(int fd, pid_t pid);

// Errors are system errors and name the folder and the file in it.
class Directory {
 public:
  static Result<Directory> open(const std::string& path);
  // Returns the folder of `path`: the part before the last slash, or ".".
  static std::string parent_of(const std::string& path);
  // Returns the part of `path` after the last slash.
  static std::string name_of(const std::string& path);

  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }
  // Returns a path for messages.
  std::string path_to(const std::string& name) const;

  // Opens `name` with O_CLOEXEC and O_NONBLOCK.  A symbolic link is an error (ELOOP).
  Result<Descriptor> open_file(const std::string& name, int flags, mode_t mode = 0) const;
  // Creates a file without a name; link () can give it one.
  Result<Descriptor> open_unnamed(mode_t mode) const;

  // Returns the status of `name` itself, not of a link's target; nullopt if the name does not
  // exist.
  std::optional<struct stat> status(const std::string& name) const;
  // Returns whether `name` refers to that file.
  bool holds(const std::string& name, const std::optional<FileIdentity>& file) const;

  // Links the open file `fd` to `name`, which must not exist.
  Result<void> link(int fd, const std::string& name) const;
  // `flags` are those of renameat2 ().
  Result<void> rename(const std::string& from, const std::string& to, unsigned flags) const;
  Result<void> remove(const std::string& name) const;
  // Flushes the names to disk.  Does nothing where the filesystem does not support it.
  Result<void> flush() const;

 private:
  Directory(std::string path, Descriptor fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  Descriptor fd_;
};

}  // namespace vc
