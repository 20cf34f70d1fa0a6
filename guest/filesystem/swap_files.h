// Where swap files of Linux are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vc::guest {

// An /etc/fstab that is longer names none.
inline constexpr uint64_t kLargestFstab = 1 << 20;  // bytes

// Paths of files that may be swap files of the guest: those that an /etc/fstab with the text
// `fstab` names, and where installers put them.  Each once.
std::vector<std::string> swap_file_paths(std::string_view fstab);

}  // namespace vc::guest
