// The result of a trim.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "appliance/guest_disk.h"
#include "appliance/partition_table.h"
#include "storage/file_size.h"

namespace vc::appliance {

// A filesystem, a swap partition, or the free space of a volume group.
struct TrimmedSpace {
  enum class Outcome {
    kTrimmed,
    kZeroFilled,  // cannot trim: its free space was filled with zeros
    kDiscarded,   // discarded as a whole: swap, free space of a volume group
    kLeftAlone,   // skipped by its type, or by the user's choice
    kFailed,
  };

  std::string device;  // name in libguestfs; for a volume group: its name
  std::string type;    // type as blkid names it; "free space" of a volume group
  std::string label;
  std::string uuid;
  uint64_t size = 0;             // bytes
  std::optional<uint64_t> used;  // bytes, according to the filesystem
  // Bytes that the disks store less than before, or would after a dry run. nullopt if their server
  // does not report it.
  std::optional<uint64_t> freed;
  Outcome outcome = Outcome::kLeftAlone;
  std::string why;        // reason for the last two outcomes
  bool excluded = false;  // the user excludes it
  bool advice = false;    // `why` has advice for the user
  // The space may have been changed, even if the trim failed.
  bool touched = false;
  std::chrono::duration<double> elapsed{};
};

// A file that the guest creates again when it boots.
struct DroppedFile {
  std::string device;
  std::string path;
  uint64_t bytes = 0;  // length of the file
};

struct TrimmedDisk {
  std::string name;
  uint64_t size = 0;  // bytes
  PartitionTable table;
  // Bytes of data, as the server reports them.
  std::optional<uint64_t> data_before;
  std::optional<uint64_t> data_after;
  // Sizes of its files, the latter after the server has ended. nullopt if the disk is not a file.
  // Both are equal in a dry run.
  std::optional<FileSize> before;
  std::optional<FileSize> after;
};

struct TrimReport {
  // Steps of the work, in order.
  struct Step {
    std::string name;
    std::chrono::duration<double> elapsed{};
  };

  std::vector<TrimmedSpace> spaces;
  std::vector<DroppedFile> dropped;
  std::vector<TrimmedDisk> disks;
  bool dry_run = false;
  bool emulated = false;       // the appliance's processor was emulated
  bool from_metadata = false;  // no appliance was used
  bool blank = false;          // no disk has data: nothing to do
  std::vector<Step> steps;
  std::chrono::duration<double> elapsed{};

  // Returns why nothing was trimmed, although the user did not exclude everything. Empty if
  // something was trimmed, or if there is no data.
  std::string why_nothing() const;
  // Returns true if nothing failed, every partition table could be read, and there was something to
  // trim.
  bool complete() const {
    for (const TrimmedDisk& it : disks)
      if (it.table.kind == PartitionTable::Kind::kDamagedGpt) return false;
    if (!why_nothing().empty()) return false;
    for (const TrimmedSpace& it : spaces)
      if (it.outcome == TrimmedSpace::Outcome::kFailed) return false;
    return true;
  }
};

}  // namespace vc::appliance
