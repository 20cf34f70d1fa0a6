// A libvirtd of a test's own.
#pragma once

#include <memory>
#include <string>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::tune_test {

// A daemon for a session, with sockets, settings and states in a folder of its own.  As root it
// runs as nobody: else it would use the system's folders.
class LibvirtDaemon {
 public:
  // Throws std::runtime_error, with what the daemon said, when it does not come up.
  LibvirtDaemon();

  // To connect to.
  std::string uri() const;
  // A folder that the daemon's machines may use.
  std::string folder() const { return folder_.path(); }
  // `virsh -c URI …`, which must succeed; what it prints.
  std::string virsh(std::vector<std::string> words) const;
  // Gives what is in the folder to the daemon.
  void hand_over() const;

 private:
  support::TempDirectory folder_;
  std::unique_ptr<support::Child> child_;
};

}  // namespace vc::tune_test
