// Finds the process that holds a lock on a file.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace vc {

// Returns a process that holds a lock on `byte` of the file of `fd`, other than through `fd`
// itself, for a message: "qemu-nbd (pid 1234)".  `pid` is the process, if known.  Otherwise
// searches all processes whose open files /proc shows; for an ordinary user these are the user's
// own.  Returns nullopt if the process is not found, or not within a short time.
std::optional<std::string> find_lock_holder(int fd, off_t byte, pid_t pid);

}  // namespace vc
