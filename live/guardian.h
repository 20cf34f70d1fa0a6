// Resumes a guest if this process dies while it has the guest paused.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "storage/descriptor.h"

namespace vc::live {

// A child process that waits for the end of this one. The destructor ends it.
class Guardian {
 public:
  using Rescue = std::function<void(const std::string& task)>;
  // Must be called before this process has threads or connections to libvirt. The child calls
  // `rescue` if this process ends while the guardian is armed.
  static Result<std::unique_ptr<Guardian>> start(const Rescue& rescue);
  Guardian(const Guardian&) = delete;
  Guardian& operator=(const Guardian&) = delete;
  ~Guardian();

  // From now on, if this process ends, the child calls the rescue with `task`, which has no
  // newline.
  Result<void> arm(const std::string& task);
  Result<void> disarm();

 private:
  Guardian(pid_t child, Descriptor pipe) : child_(child), pipe_(std::move(pipe)) {}
  Result<void> send(const std::string& line);

  const pid_t child_;
  Descriptor pipe_;
};

}  // namespace vc::live
