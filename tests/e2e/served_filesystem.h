// Provides a served disk as a block device of the kernel, and a filesystem on it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::test {

// Returns the reason why this process cannot use loop devices, FUSE, or this type of filesystem.
// Empty if it can.
std::string why_no_filesystem(const std::string& type);

// Provides an export as a block device: nbdfuse shows it as a file, and a loop device uses this
// file. (The kernel's own NBD client is not loaded on most build machines.)
class BlockDevice {
 public:
  explicit BlockDevice(const std::string& socket);
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;
  ~BlockDevice();

  const std::string& path() const { return path_; }

 private:
  support::TempDirectory folder_;
  std::string path_;
  std::unique_ptr<support::Child> daemon_;
};

// A filesystem that is mounted while the object lives.
class Mount {
 public:
  // `type`: ext4, xfs or ntfs.  `options`: the argument of mount -o.
  Mount(const std::string& type, const std::string& device, const std::string& options);
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount();

  std::string operator/(const std::string& name) const { return folder_ / name; }
  const std::string& path() const { return folder_.path(); }
  // Returns the used size of the filesystem, bytes.
  uint64_t live() const;

 private:
  support::TempDirectory folder_;
};

}  // namespace vc::test
