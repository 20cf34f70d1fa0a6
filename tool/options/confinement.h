// Drops the privileges of this process that reading an untrusted image does not need.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace vc::tool {

// The files that the process may still open once it is confined.
struct ConfinementPlan {
  std::vector<std::string> readable;  // files, read-only
  std::vector<std::string> writable;  // existing files and devices, read-write
  // Folders in which files may be created, read, replaced and removed.
  std::vector<std::string> folders;
};

struct Confinement {
  bool landlock = false;  // only files of the plan can be opened
  bool seccomp = false;   // no new programs, sockets or privileges, no access to other processes
  // Missing kernel features, for a message. Empty: none.
  std::string missing;
};

// Confines the process permanently, with all threads that start later. Must be called before any
// other thread starts. A kernel without Landlock (Linux 5.13) or seccomp is no error; the result
// reports it. A path of the plan that cannot be opened is an error.
//
// Landlock blocks all files outside of the plan, for reading and writing. If the kernel's version
// supports it, it also blocks TCP, signals to other processes, and abstract sockets. Seccomp
// permits a list of required system calls; all others fail with EPERM.
Result<Confinement> confine(const ConfinementPlan& plan);

}  // namespace vc::tool
