// Whether a result has its place, before anything is written there.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace copy {

// An error if a file at `path` could not be made, by its name, the rights on its folder and the
// space of its filesystem, for a result of `needed` bytes.  Nothing is opened for writing.
qcow2::Result<void> check_file_place(const std::string& path, bool overwrite, uint64_t needed);

// Returns the bytes that an unprivileged user can still write in the filesystem of the folder of
// `path`; its last part need not exist.
qcow2::Result<uint64_t> free_bytes_for(const std::string& path);

// An error if the block device at `path` has less than `needed` bytes, for `what` ("an image").
qcow2::Result<void> check_device_place(const std::string& path, uint64_t needed, const char* what);

}  // namespace copy
