// Detects option-like words in the place of a file name.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace vc::tool {

// Throws UsageError if `name`, given for the file `what` ("OUT"), looks like an image option
// (cluster_size=1M), a format name or a kind of report. `lists`: the option that takes the first.
// `formats`: the option that takes the second, or other advice. "./qcow2" is accepted as a file.
// Only for names that are written: a wrong input name is reported as not found.
void refuse_option_like(const std::string& name, const char* what, const char* lists,
                        const char* formats);

// Returns the key if `name` is an image option with a value ("cluster_size=1M"), else an empty
// string.
std::string creation_option_in(const std::string& name);

enum class DiskKinds { kFiles, kFilesAndDevices };

// Checks all disks before any is replaced or changed. Returns an error if a disk is missing, is
// neither a regular file nor, if accepted, a block device, or is listed twice. For IN and OUT in
// the style of virt-sparsify, the error mentions -o.
Result<void> check_disks(const std::vector<std::string>& disks, DiskKinds kinds);

}  // namespace vc::tool
