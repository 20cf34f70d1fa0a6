// Checks of a destination before anything is written.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace vc::copy {

// Returns an error if a file of `needed` bytes cannot be created at `path`: checks the name, the
// folder's permissions, and free space of the filesystem. Opens nothing for writing.
Result<void> check_file_place(const std::string& path, bool overwrite, uint64_t needed);

// Returns the bytes that an unprivileged user can still write to the filesystem of `path`'s folder.
// The last part of `path` need not exist.
Result<uint64_t> free_bytes_for(const std::string& path);

// Returns an error if the block device at `path` has less than `needed` bytes. `what` is for the
// message ("an image").
Result<void> check_device_place(const std::string& path, uint64_t needed, const char* what);

}  // namespace vc::copy
