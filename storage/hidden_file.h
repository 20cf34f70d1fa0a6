// The names that files have while they are being made, and what a killed run has left of them.
//
//     .NAME.virt-compact-PID-N    becomes NAME
//
// Whoever makes such a file holds a lock on one byte of it, far behind all that is locked else, for
// as long as it lives.  A file of that name that is ours and that no process has locked was left by
// a run that is dead: the PID alone would not prove it.
#pragma once

#include <string>

#include "base/result.h"
#include "storage/descriptor.h"
#include "storage/directory.h"

namespace qcow2 {

// A name in the folder of `name` that no other file of this process gets.
std::string hidden_name(const std::string& name);

// Says that the process that makes the file is alive, until `fd` is closed.  Returns false if
// somebody else has locked the file; true where the filesystem has no locks: there nothing is ever
// removed.
bool mark_alive(int fd);

struct HiddenFile {
  std::string name;
  Descriptor file;
};

// Makes one, for reading and writing, which is marked.
Result<HiddenFile> create_hidden(const Directory& folder, const std::string& name);

// Removes what dead runs of this user have left that was to become `name`.
void remove_dead_files(const Directory& folder, const std::string& name);

}  // namespace qcow2
