// What trimming a guest's disks has come to.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "appliance/guest_disk.h"
#include "appliance/partition_table.h"

namespace vc::appliance {

// A filesystem, a swap partition, or the free space of a volume group.
struct TrimmedSpace {
  enum class Outcome {
    kTrimmed,
    kZeroFilled,  // it cannot trim: its free space was filled with zeros, which became holes
    kDiscarded,   // as a whole: swap, and free space of a volume group
    kLeftAlone,   // by its nature, or as the user wanted
    kFailed,
  };

  std::string device;  // as libguestfs names it; of a volume group: its name
  std::string type;    // as blkid names it; "free space" of a volume group
  std::string label;
  std::string uuid;
  uint64_t size = 0;             // bytes
  std::optional<uint64_t> used;  // bytes; as the filesystem says
  // Bytes that the disks take less; or would, in a dry run.  Nothing if their server does not tell.
  std::optional<uint64_t> freed;
  Outcome outcome = Outcome::kLeftAlone;
  std::string why;       // of the last two
  bool by_wish = false;  // the user does not want it
  bool advice = false;   // `why` tells what somebody should do about it
  // Something may have been written: what failed then may not be as the guest left it.
  bool touched = false;
  std::chrono::duration<double> elapsed{};
};

// A file that the guest makes again.
struct DroppedFile {
  std::string device;
  std::string path;
  uint64_t bytes = 0;  // its length
};

struct TrimmedDisk {
  std::string name;
  uint64_t size = 0;  // bytes
  PartitionTable table;
  // What the server called data, bytes.
  std::optional<uint64_t> data_before;
  std::optional<uint64_t> data_after;
  // Of its files, after the server has put all in order.  None of what is no file; in a dry run
  // both are the same.
  std::optional<FileFigures> before;
  std::optional<FileFigures> after;
};

struct TrimReport {
  // Of the work, in order.
  struct Step {
    std::string name;
    std::chrono::duration<double> elapsed{};
  };

  std::vector<TrimmedSpace> spaces;
  std::vector<DroppedFile> dropped;
  std::vector<TrimmedDisk> disks;
  bool dry_run = false;
  bool emulated = false;       // the appliance's processor
  bool from_metadata = false;  // without an appliance
  bool blank = false;          // no disk has any data: there was nothing to look for
  std::vector<Step> steps;
  std::chrono::duration<double> elapsed{};

  // Why nothing was trimmed, though the user has not chosen to leave all alone; empty: something
  // was, or there is no data.
  std::string why_nothing() const;
  // Whether nothing has failed, every partition table could be read, and something was found.
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
