// A served disk as a block device of the kernel, and a filesystem on it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::test {

// Returns the reason why this process cannot use loop devices, FUSE, or this type of filesystem, or
// an empty string.
std::string why_no_filesystem(const std::string& type);

// An export as a block device: nbdfuse is the client, and shows it as a file through FUSE,
// on which there is a loop device.  (The kernel has a client of its own, but few machines
// that build software have it loaded.)
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

// A filesystem that is mounted as long as the object lives.
class Mount {
 public:
  // `type`: ext4, xfs or ntfs.  `options`: the argument of mount -o.
  Mount(const std::string& type, const std::string& device, const std::string& options);
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount();

  std::string operator/(const std::string& name) const { return folder_ / name; }
  const std::string& path() const { return folder_.path(); }
  // The used size of the filesystem, in bytes.
  uint64_t live() const;

 private:
  support::TempDirectory folder_;
};

}  // namespace vc::test
