// Takes away from this process what reading an untrusted image does not need.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace tool {

// What the process may still open once it is confined.
struct ConfinementPlan {
  std::vector<std::string> readable;  // files, for reading
  std::vector<std::string> writable;  // files and devices that are there, for writing, too
  // Folders in which files are made, read, replaced and removed.
  std::vector<std::string> folders;
};

struct Confinement {
  bool landlock = false;  // no file but those of the plan can be opened
  bool seccomp = false;   // no program, no socket, no other process, no privileges
  // What the kernel lacks, for a message; empty: nothing.
  std::string missing;
};

// For good, and for all threads that start later; to be called before any other thread starts.
// That the kernel lacks Landlock (Linux 5.13) or seccomp is no error: the result says so.  That a
// path of the plan cannot be opened is.
//
// Landlock: everything but the plan is out of reach, for reading and for writing; so are TCP, other
// processes' signals and abstract sockets where the kernel's version covers them.  Seccomp: a list
// of the system calls that are needed; all others fail with EPERM.
qcow2::Result<Confinement> confine(const ConfinementPlan& plan);

}  // namespace tool
