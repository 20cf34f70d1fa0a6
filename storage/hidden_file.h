// Temporary names of files that are being created, and the removal of files that killed runs have
// left.
//
//     .NAME.virt-compact-PID-N    becomes NAME
//
// The creator of such a file holds a lock on one byte of it, far past all other locks, until it
// ends.  A file with such a name that this user owns and no process has locked is the file of a
// dead run; the PID alone does not prove that.
#pragma once

#include <string>

#include "base/result.h"
#include "storage/descriptor.h"
#include "storage/directory.h"

namespace vc {

// Returns a name in the folder of `name` that no other file of this process gets.
std::string hidden_name(const std::string& name);

// Marks the file as one of a live process, until `fd` is closed.  Returns false if another process
// has locked the file.  Returns true where the filesystem has no locks: no files are removed there.
bool mark_alive(int fd);

struct HiddenFile {
  std::string name;
  Descriptor file;
};

// Creates and marks a hidden file, open for reading and writing.
Result<HiddenFile> create_hidden(const Directory& folder, const std::string& name);

// Removes the files that dead runs of this user have left in place of `name`.
void remove_dead_files(const Directory& folder, const std::string& name);

}  // namespace vc
