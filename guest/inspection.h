// What is on the disks of a guest, and which of it is free, from metadata alone.
//
// Nothing is mounted, written or started.  What is called free may read as zeros from then on; what
// is not surely free is kept.
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

// Why a volume in which nothing is recognized is doubted.
inline constexpr const char* kUnknownContent = "its content is unknown";

struct VolumeFile {
  std::string path;
  uint64_t size = 0;  // bytes
  // Where its contents lie that may read as zeros: a range list for each disk, in their order.
  std::vector<Ranges> on_disks;
};

struct Volume {
  std::string device;  // as Linux calls it in libguestfs's appliance: /dev/sda1, /dev/vg/lv; a
                       // volume group by its name
  std::string type;    // as libblkid calls it; empty: not known
  std::string label;
  std::string uuid;
  uint64_t size = 0;  // bytes; of a volume group what is free in it
  Reading::Verdict verdict = Reading::Verdict::kDoubt;
  std::string why;    // for all verdicts but kFree
  uint64_t free = 0;  // bytes
  // Where that is: a range list for each disk, in their order.
  std::vector<Ranges> on_disks;
  // Where the volume itself lies, in the same form; empty if that is not known, and of the free
  // space of a volume group.
  std::vector<Ranges> place;
  // Of a volume that is kFree, files of the kinds that were asked for.
  std::vector<VolumeFile> files;
  std::string no_files;  // why none is told of, though there may be some; empty: all are
};

struct Inspection {
  std::vector<Volume> volumes;
  // Why a disk's partitions could not be read, one line each.
  std::vector<std::string> doubts;

  // The first volume that says that the guest is suspended; nullptr: none does.  Its session has
  // metadata of all volumes in memory: what is free on any of them cannot be said.
  const Volume* suspended() const;
  // All that is free on the disk of that number; nothing if the guest is suspended.
  Ranges free_on(size_t disk) const;
};

// The disks are those of one guest: a volume group may lie on several.  They are read while this
// runs, and not afterwards.  `kinds` are the files that are looked for.  After a cancellation of a
// view this returns soon, and what it returns is not the truth: the caller must ask.
Inspection inspect(const std::vector<std::shared_ptr<const ByteView>>& disks,
                   const FileKinds& kinds = {});

}  // namespace vc::guest
