// A filesystem that loses its power: what was not flushed is lost.
#pragma once

#include <string>

#include "tests/support/temp_directory.h"

namespace vc::live_test {

// An ext4 in a file. The file is what the device has: a copy of it, taken while the filesystem is
// mounted, is the disk after a loss of power. The mount is in a mount namespace of this process, so
// it must be made before the processes that use it.
class LossyFilesystem {
 public:
  LossyFilesystem();
  LossyFilesystem(const LossyFilesystem&) = delete;
  LossyFilesystem& operator=(const LossyFilesystem&) = delete;
  ~LossyFilesystem();

  // Returns why there is no filesystem, for example for lack of rights; empty: there is one.
  const std::string& missing() const { return missing_; }

  // Mounts the filesystem on a folder, whose files move into it. No process may use them.
  void mount_on(const std::string& folder);
  // Loses the power. No process may use the files.
  void lose_power();
  // Ends the mount, so that the folder can be removed. No process may use the files.
  void unmount();

 private:
  void mount(const std::string& folder);

  support::TempDirectory folder_;
  const std::string device_ = folder_ / "device";
  std::string missing_;
  std::string mounted_on_;  // empty: nowhere
};

}  // namespace vc::live_test
