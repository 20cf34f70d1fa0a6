// Finds the filesystems on a guest's disks, and decides which may be changed.
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
    kSuspended,  // swap with the saved session of a Linux guest
    kVolumeGroup,
    kOther,  // neither a known filesystem nor swap
  };

  Kind kind = Kind::kOther;
  std::string device;
  std::string type;
  std::string label;
  std::string uuid;
  uint64_t size = 0;          // bytes; of a volume group: its free space
  std::string mount_options;  // needed to mount it for writing
  std::string left_alone;     // reason to skip it; empty: it is not skipped
  bool excluded = false;      // the user excludes it
  bool must_stay = false;     // skipped whatever the user chooses; left_alone has advice
};

// Lists everything on the disks. Lists the free space of a volume group only if there is some.
// `opened`: opened encrypted devices, whose contents are listed instead.
Result<std::vector<Space>> survey(const Appliance& appliance,
                                  const std::vector<std::string>& opened);

// Marks the spaces that the user excludes, and those that need no trim. Returns an error if a name
// in `options` does not exist.
Result<void> choose(const TrimOptions& options, std::vector<Space>& spaces);

// Returns an error with advice if a chosen space belongs to a suspended guest, or was not shut down
// cleanly, so that its free space is unknown.
Result<void> check_shut_down(const Appliance& appliance, const TrimOptions::Drop& drop,
                             std::vector<Space>& spaces);

// Return the errors for hibernated Windows and suspended Linux guests, whose session is on
// `device`.
Error hibernated(const std::string& device);
Error suspended(const std::string& device);

// Name of our temporary logical volume. Only a killed run leaves one.
inline constexpr const char* kFreeSpaceVolume = "virt-compact-free-space";

}  // namespace vc::appliance
