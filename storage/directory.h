// An open folder, and what can be done to the names in it.
//
// Whoever may write to a folder can give a name in it to another file between two calls, or put a
// symbolic link there.  So a folder is opened once, its names are used relative to it, no link is
// followed, and what was opened is compared with what the name stands for.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "storage/descriptor.h"

namespace qcow2 {

// What makes two names, or two descriptors, the same file.
struct FileIdentity {
  dev_t device;
  ino_t inode;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;

  static FileIdentity of(const struct stat& status) { return {status.st_dev, status.st_ino}; }
  // Returns nullopt if `fd` is not open.
  static std::optional<FileIdentity> of(int fd);
};

// A path of `fd` in /proc, good for as long as it is open: of this process, or (`pid`) for others
// too.
std::string path_of_descriptor(int fd);
std::string path_of_descriptor(int fd, pid_t pid);

// Errors are those of the system, and name the folder and the name in it.
class Directory {
 public:
  static Result<Directory> open(const std::string& path);
  // The folder in which `path` is: all before the last slash, or ".".
  static std::string parent_of(const std::string& path);
  // What is behind the last slash.
  static std::string name_of(const std::string& path);

  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }
  // For messages.
  std::string path_to(const std::string& name) const;

  // Opens `name` with O_CLOEXEC and O_NONBLOCK; a symbolic link is an error (ELOOP).
  Result<Descriptor> open_file(const std::string& name, int flags, mode_t mode = 0) const;
  // Makes a file without a name, which link () can give it one.
  Result<Descriptor> open_unnamed(mode_t mode) const;

  // What `name` itself is; nullopt if there is no such name.
  std::optional<struct stat> status(const std::string& name) const;
  // Whether `name` stands for that file.
  bool holds(const std::string& name, const std::optional<FileIdentity>& file) const;

  // Gives the file that is open as `fd` the name, which must not be there.
  Result<void> link(int fd, const std::string& name) const;
  // `flags` as of renameat2 ().
  Result<void> rename(const std::string& from, const std::string& to, unsigned flags) const;
  Result<void> remove(const std::string& name) const;
  // Puts the names on the disk; nothing where the filesystem has no such thing.
  Result<void> flush() const;

 private:
  Directory(std::string path, Descriptor fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  Descriptor fd_;
};

}  // namespace qcow2
