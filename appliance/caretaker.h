// Takes away what libguestfs has in temporary folders, also when this process is killed: libguestfs
// does so only when it is closed.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>

#include "base/result.h"

namespace vc::appliance {

// A process of its own that knows the folders and waits, at the other end of a socket, until this
// one is gone; then it removes them, and ends.  In a session of its own, so that what the terminal
// sends to us does not reach it.
class Caretaker {
 public:
  // An error if the folder cannot be made or the process cannot be started.
  static Result<std::unique_ptr<Caretaker>> start();
  Caretaker(const Caretaker&) = delete;
  Caretaker& operator=(const Caretaker&) = delete;
  // Ends the process, and removes folder ().
  ~Caretaker();

  // Empty, and for libguestfs's temporary files; whoever QEMU runs as may look into it.
  const std::string& folder() const { return folder_; }

  // libguestfs has its socket elsewhere.  Looks for it among the descriptors of this process, and
  // tells its folder to the caretaker.  False: there is none yet.  To be called by one thread.
  bool find_socket();

 private:
  explicit Caretaker(std::string folder) : folder_(std::move(folder)) {}
  void tell(const std::string& folder);

  const std::string folder_;
  pid_t pid_ = -1;
  int names_ = -1;  // owned; where to write names to, a line each
};

}  // namespace vc::appliance
