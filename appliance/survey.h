// What is on a guest's disks, and what of it may be touched.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "appliance/appliance.h"
#include "appliance/trim_options.h"
#include "appliance/trim_report.h"
#include "base/result.h"

namespace vc::appliance {

struct Space {
  enum class Kind {
    kFilesystem,
    kSwap,
    kSuspended,  // swap that holds the session of a Linux guest
    kVolumeGroup,
    kOther,  // nothing that we could do anything with
  };

  Kind kind = Kind::kOther;
  std::string device;
  std::string type;
  std::string label;
  std::string uuid;
  uint64_t size = 0;          // bytes; of a volume group what is free in it
  std::string mount_options;  // for it to be writable
  std::string left_alone;     // why nothing is done with it; empty: something is
  bool by_wish = false;       // that is so since the user wants it
  bool must_stay = false;     // whatever the user wants; left_alone says what to do
};

// The free space of volume groups is only told of where there is some.  `opened`: encrypted devices
// that are open, of which what is in them is listed.
Result<std::vector<Space>> survey(const Appliance& appliance,
                                  const std::vector<std::string>& opened);

// Marks what the user does not want, and what is known without trimming.  An error for a name of
// the user's that is nothing's.
Result<void> choose(const TrimOptions& options, std::vector<Space>& spaces);

// An error when what is chosen belongs to a guest that is suspended, or that was not shut down
// cleanly so that it is not known what is free: with what to do.
Result<void> check_shut_down(const Appliance& appliance, const TrimOptions::Drop& drop,
                             std::vector<Space>& spaces);

// The errors of such guests, which lie on `device`: Windows's and Linux's.
Error hibernated(const std::string& device);
Error suspended(const std::string& device);

// An LV of ours, which no run leaves behind but one that was killed.
inline constexpr const char* kFreeSpaceVolume = "virt-compact-free-space";

}  // namespace vc::appliance
