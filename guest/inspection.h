// Finds the volumes on the disks of a guest, and their free space, from metadata alone.
//
// Mounts, writes and starts nothing. Free space may read as zeros afterwards. All data that is not
// certainly free is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "guest/reading/byte_view.h"
#include "guest/reading/found_file.h"
#include "guest/reading/ranges.h"
#include "guest/reading/reading.h"

namespace vc::guest {

// The doubt about a volume in which no format is recognized.
inline constexpr const char* kUnknownContent = "its content is unknown";

struct VolumeFile {
  std::string path;
  uint64_t size = 0;  // bytes
  // The droppable contents: a range list for each disk, in the order of the disks.
  std::vector<Ranges> on_disks;
};

struct Volume {
  std::string device;  // Linux's name in libguestfs's appliance (/dev/sda1,
                       // /dev/vg/lv), or the volume group's name
  std::string type;    // libblkid's name; empty: unknown
  std::string label;
  std::string uuid;
  uint64_t size = 0;  // bytes; of a volume group: its free space
  Reading::Verdict verdict = Reading::Verdict::kDoubt;
  std::string why;    // for all verdicts except kFree
  uint64_t free = 0;  // bytes
  // The free space: a range list for each disk, in the order of the disks.
  std::vector<Ranges> on_disks;
  // The place of the volume itself, in the same form. Empty if unknown, and for the free space of a
  // volume group.
  std::vector<Ranges> place;
  // Files of the requested kinds; only for a volume that is kFree.
  std::vector<VolumeFile> files;
  std::string no_files;  // why `files` may be incomplete; empty: it is complete
};

struct Inspection {
  std::vector<Volume> volumes;
  // Reasons why the partitions of a disk could not be read, one line each.
  std::vector<std::string> doubts;

  // Returns the first volume that holds a suspended session; nullptr if there is none. The session
  // has metadata of all volumes in memory, so the free space of all volumes is unknown.
  const Volume* suspended() const;
  // Returns all free space on disk number `disk`. Empty if the guest is suspended.
  Ranges free_on(size_t disk) const;
};

// Inspects the disks, which must belong to one guest: a volume group may cover several of them.
// Reads the disks only during the call. `kinds`: files to find. After a cancellation of a view,
// returns soon, with an incomplete result: the caller must check for it.
Inspection inspect(const std::vector<std::shared_ptr<const ByteView>>& disks,
                   const FileKinds& kinds = {});

}  // namespace vc::guest
