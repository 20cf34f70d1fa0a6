// A filesystem in a file, mounted while the object lives.
#pragma once

#include <cstdint>
#include <string>

#include "tests/support/temp_directory.h"

namespace vc::reflink_test {

// The mount is in a mount namespace of this process: if the process is killed, nothing stays
// mounted.
class MountedFilesystem {
 public:
  // `type`: xfs or btrfs. `size`: bytes.
  MountedFilesystem(const std::string& type, uint64_t size);
  MountedFilesystem(const MountedFilesystem&) = delete;
  MountedFilesystem& operator=(const MountedFilesystem&) = delete;
  ~MountedFilesystem();

  // Returns why there is no filesystem, for example for lack of rights; empty: it is mounted.
  const std::string& missing() const { return missing_; }

  std::string operator/(const std::string& name) const { return path() + "/" + name; }
  std::string path() const { return folder_ / "mounted"; }

  // Writes everything to the disk, and returns the bytes that are in use.
  uint64_t used() const;

 private:
  support::TempDirectory folder_;
  std::string missing_;
};

}  // namespace vc::reflink_test
