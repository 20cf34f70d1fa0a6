// Removes libguestfs's temporary folders, even if this process is killed. libguestfs itself removes
// them only when it is closed.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>

#include "base/result.h"
#include "storage/descriptor.h"

namespace vc::appliance {

// A separate cleanup process. It receives the names of the folders through a socket, waits until
// this process has closed the other end, removes the folders, and exits. It has a session of its
// own, so that signals of the terminal do not reach it.
class CleanupProcess {
 public:
  // Returns an error if the folder cannot be created or the process cannot be started.
  static Result<std::unique_ptr<CleanupProcess>> start();
  CleanupProcess(const CleanupProcess&) = delete;
  CleanupProcess& operator=(const CleanupProcess&) = delete;
  // Ends the process, and removes folder().
  ~CleanupProcess();

  // An empty folder for libguestfs's temporary files. The user that QEMU runs as can read it.
  const std::string& folder() const { return folder_; }

  // Searches the descriptors of this process for libguestfs's socket, which is in another folder,
  // and tells this folder to the cleanup process. Returns false if there is no socket yet. Must be
  // called by one thread.
  bool find_socket();

 private:
  explicit CleanupProcess(std::string folder) : folder_(std::move(folder)) {}
  void tell(const std::string& folder);

  const std::string folder_;
  pid_t pid_ = -1;
  Descriptor names_;  // receives the folders, one a line
};

}  // namespace vc::appliance
