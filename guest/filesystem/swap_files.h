// Finds swap files of Linux.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "guest/filesystem/guest_files.h"
#include "guest/reading/found_file.h"
#include "guest/reading/ranges.h"

namespace vc::guest {

// A longer /etc/fstab is ignored.
inline constexpr uint64_t kLargestFstab = 1 << 20;  // bytes

// Returns the paths of possible swap files, without duplicates: those in `fstab`, the text of an
// /etc/fstab, and those where installers put them. Returns at most as many from the text as Linux
// supports.
std::vector<std::string> swap_file_paths(std::string_view fstab);

// Finds the swap files of a clean filesystem: those in its /etc/fstab, if it is a root filesystem,
// and those at the usual places. Their contents are all but the header. `free` is in bytes of the
// volume, `metadata` in blocks. Returns an error if a file may share its blocks, or holds a saved
// session.
Result<std::vector<FoundFile>> find_swap_files(const GuestFiles& files, const Ranges& free,
                                               const Ranges& metadata);

}  // namespace vc::guest
