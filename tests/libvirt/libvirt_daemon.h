// A libvirtd for a test.
#pragma once

#include <memory>
#include <string>

#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::tune_test {

// A session daemon with its sockets, settings and states in a temporary folder. If the test runs as
// root, the daemon runs as user nobody. As root, it would use the system's folders.
class LibvirtDaemon {
 public:
  // Throws std::runtime_error with the daemon's output if it does not start.
  LibvirtDaemon();
  // Ends the domains that still run: they would outlive the daemon.
  ~LibvirtDaemon();
  LibvirtDaemon(const LibvirtDaemon&) = delete;
  LibvirtDaemon& operator=(const LibvirtDaemon&) = delete;

  // Kills the daemon, and starts it again. Its domains run on.
  void restart();

  // Returns the URI of the daemon.
  std::string uri() const;
  // Returns a folder that the daemon's domains may use.
  std::string folder() const { return folder_.path(); }
  // Runs `virsh -c URI …`, which must succeed, and returns its output.
  std::string virsh(std::vector<std::string> words) const;
  // Changes the owner of the folder's content to the daemon's user.
  void hand_over() const;

 private:
  void start();

  support::TempDirectory folder_;
  std::unique_ptr<support::Child> child_;
};

}  // namespace vc::tune_test
