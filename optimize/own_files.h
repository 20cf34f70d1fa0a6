// Temporary files and names beside the disk.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <utility>

#include "storage/directory.h"

namespace vc::optimize {

// A file that this process has created. The destructor removes it, unless its name belongs to
// another file by then.
class TemporaryFile {
 public:
  // `file` must stay open during the lifetime of the object.
  TemporaryFile(std::string path, int file)
      : path_(std::move(path)), file_(FileIdentity::of(file)) {}
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (path_.empty()) return;
    const auto folder = Directory::open(Directory::parent_of(path_));
    const std::string name = Directory::name_of(path_);
    if (folder && folder->holds(name, file_)) (void)folder->remove(name);
  }
  // Keeps the file.
  void keep() { path_.clear(); }

 private:
  std::string path_;
  const std::optional<FileIdentity> file_;
};

// While the object lives, only their owner can read new files.
class PrivateFiles {
 public:
  PrivateFiles() : old_(::umask(077)) {}
  PrivateFiles(const PrivateFiles&) = delete;
  PrivateFiles& operator=(const PrivateFiles&) = delete;
  ~PrivateFiles() { ::umask(old_); }

 private:
  const mode_t old_;
};

// Returns the hidden name FOLDER/.NAME.ending of FOLDER/NAME.
std::string name_beside(const std::string& path, const char* ending);

}  // namespace vc::optimize
