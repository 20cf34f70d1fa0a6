// Files that a run makes beside the disk.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <utility>

#include "storage/directory.h"

namespace vc::optimize {

// A file that this process has made.  The destructor removes it, but no other file that has its
// name by then.
class TemporaryFile {
 public:
  // `file` is open for as long as the object lives.
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

// While the object lives, new files can be read by their owner only.
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
