// Decides which data of a disk the guest does not use, by the metadata of its filesystems or by the
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
  kAuto,       // metadata; the appliance for the rest, if worth a boot
  kMetadata,   // only metadata: never boots the appliance
  kAppliance,  // only the appliance
  kNone,       // copies all data
};

const char* to_string(Trimming trimming);

struct PlannedVolume {
  enum class Way {
    kMetadata,   // the free space is known, and is not copied
    kAppliance,  // the appliance trims the volume
    kWhole,      // all of the volume is copied
  };

  std::string device;  // name in libguestfs; for a volume group: its name
  std::string type;    // type as blkid names it; empty: unknown
  std::string label;
  std::string uuid;
  uint64_t size = 0;  // bytes
  Way way = Way::kWhole;
  std::string why;               // reason for kAppliance or kWhole
  bool excluded = false;         // the user excludes the volume
  std::optional<uint64_t> free;  // bytes; only with kMetadata
  uint64_t stored = 0;  // data in the image, bytes: in the free space, or in the whole volume
};

struct FreeSpacePlan {
  // A boot is not worth its time if the volumes that need it have less data than this, bytes.
  static constexpr uint64_t kWorthABoot = 64 << 20;

  Trimming trimming = Trimming::kAuto;  // as requested
  bool boots = false;
  std::string why;     // reason to boot or not to boot
  bool blank = false;  // the disk has no data, so there is nothing to plan
  // Offset on the disk before which the appliance changes nothing, bytes. 0: unknown.
  uint64_t unchanged_until = 0;
  std::string failed;  // why there is no plan, so that all is copied; empty: there is a plan
  std::vector<PlannedVolume> volumes;
  // Ranges that read as zeros in the copy. nullptr: none.
  std::shared_ptr<const guest::Ranges> unused;
  // Files with content in these ranges.
  std::vector<appliance::DroppedFile> dropped;
  // Files that could not be dropped, one line each.
  std::vector<std::string> not_dropped;

  // For TrimOptions::known.
  std::vector<std::string> known_devices() const;
  // Returns why all data is copied, although the user has not requested that. Empty if some data is
  // not copied, or if there is no data.
  std::string why_nothing() const;
};

// Makes a plan. Reads `source`. `options` chooses filesystems, dropped files and passphrases, as
// for the appliance. Returns an error if the guest is suspended or hibernated, if a name in
// `options` does not exist, and after a cancellation.
Result<FreeSpacePlan> plan_free_space(copy::Source& source, Trimming trimming,
                                      const appliance::TrimOptions& options, const Cancel& cancel);

}  // namespace vc::optimize
