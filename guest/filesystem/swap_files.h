// Swap files of Linux.
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

// An /etc/fstab that is longer names none.
inline constexpr uint64_t kLargestFstab = 1 << 20;  // bytes

// Paths of files that may be swap files of the guest: those that an /etc/fstab with the text
// `fstab` names, and where installers put them.  Each once.  No more of an fstab than Linux uses.
std::vector<std::string> swap_file_paths(std::string_view fstab);

// Finds the swap files of a filesystem that is clean: those that its /etc/fstab names, if it is a
// root, and in the usual places.  Their contents are what lies behind their header.  `free` is in
// bytes of the volume, `metadata` in blocks.  An error if one of the files is not surely a swap
// file's alone, or has a saved session.
Result<std::vector<FoundFile>> find_swap_files(const GuestFiles& files, const Ranges& free,
                                               const Ranges& metadata);

}  // namespace vc::guest
