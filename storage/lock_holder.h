// Who holds a lock on a file.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace qcow2 {

// A process that holds a lock on `byte` of the file behind `fd`, other than through `fd` itself,
// for a message: "qemu-nbd (pid 1234)".  `pid` is the process, if it is known; else all those are
// looked through whose open files /proc shows to us, which for an ordinary user are his own.
// Nothing when it cannot be told, or not soon.
std::optional<std::string> find_lock_holder(int fd, off_t byte, pid_t pid);

}  // namespace qcow2
