// What a guest does not use of its disk, and who says so: the metadata of its filesystems, or the
// appliance.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "appliance/trim.h"
#include "appliance/trim_report.h"
#include "base/result.h"
#include "copy/source/source.h"
#include "guest/reading/ranges.h"

namespace vc::optimize {

enum class Trimming {
  kAuto,       // the metadata; and the appliance where they do not tell, if that is worth a boot
  kMetadata,   // the metadata alone: nothing is booted
  kAppliance,  // the appliance alone
  kNone,       // all is copied
};

const char* to_string(Trimming trimming);

struct PlannedVolume {
  enum class Way {
    kMetadata,   // what is free is known, and is not copied
    kAppliance,  // it is trimmed in the appliance
    kWhole,      // all of it is copied
  };

  std::string device;  // as libguestfs names it; of a volume group: its name
  std::string type;    // as blkid names it; empty: not known
  std::string label;
  std::string uuid;
  uint64_t size = 0;  // bytes
  Way way = Way::kWhole;
  std::string why;               // of the last two
  bool by_wish = false;          // the user does not want it to be trimmed
  std::optional<uint64_t> free;  // bytes; of kMetadata
  uint64_t stored = 0;           // bytes of data in the image: of what is free, or of the volume
};

struct FreeSpacePlan {
  // The boot costs more than it brings while the volumes that need it have less data, bytes.
  static constexpr uint64_t kWorthABoot = 64 << 20;

  Trimming trimming = Trimming::kAuto;  // as asked for
  bool boots = false;
  std::string why;     // it boots, or does not
  bool blank = false;  // the disk has no data: there is nothing to look for
  // Offset on the disk before which the appliance changes nothing, bytes.  0: not known.
  uint64_t unchanged_until = 0;
  std::string failed;  // why there is no plan, and all is copied; empty: there is one
  std::vector<PlannedVolume> volumes;
  // What reads as zeros in the copy; nullptr: nothing.
  std::shared_ptr<const guest::Ranges> unused;
  // Files whose contents are among that.
  std::vector<appliance::DroppedFile> dropped;
  // What was to be dropped and is not, one line each.
  std::vector<std::string> not_dropped;

  // For TrimOptions::known.
  std::vector<std::string> known_devices() const;
  // Why all data is copied, though the user has not chosen to leave all alone; empty: some is not,
  // or there is no data.
  std::string why_nothing() const;
};

// `source` is read while this runs.  `options` say which filesystems, what is dropped and what is
// encrypted, as they do to the appliance.  An error when the guest is suspended or hibernated, or
// if a name is of nothing, and after a cancellation.
Result<FreeSpacePlan> plan_free_space(copy::Source& source, Trimming trimming,
                                      const appliance::TrimOptions& options, const Cancel& cancel);

}  // namespace vc::optimize
