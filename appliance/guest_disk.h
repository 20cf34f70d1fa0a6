// The user's name of a disk, and its properties before a server starts.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/result.h"
#include "copy/source/disk_name.h"
#include "nbd/tuning.h"
#include "qcow2/read/chain.h"
#include "storage/file_size.h"

namespace vc::appliance {

struct GuestDiskName : copy::DiskName {
  std::string shown{};           // name for messages; empty: `name`
  qcow2::NamePolicy names = {};  // permitted file names; kLeaveOut is invalid for a guest
  std::chrono::seconds timeout = nbd::NbdTuning().timeout;  // servers only; 0: no timeout
  std::shared_ptr<const crypto::KeyRing> keys = {};         // of an encrypted image
};

struct GuestDisk {
  std::string name;  // for messages
  GuestDiskName given;
  // Only for a file or a block device:
  bool local = false;
  qcow2::Format format = qcow2::Format::kRaw;
  std::string data_file;       // external data file of the image; empty: none
  std::string backing;         // backing file name in the image; empty: none
  size_t snapshots = 0;        // number of internal snapshots
  bool encrypted = false;      // the image, or one of its backing files
  uint64_t granularity = 512;  // smallest deallocation, bytes
  // Holds the lock of a raw file, since its server takes none. nullptr for other disks.
  std::shared_ptr<FileStorage> lock;
};

// Returns the size of image and external data file together. nullopt if the disk is not a regular
// file.
std::optional<FileSize> file_size(const GuestDisk& disk);

// Opens a disk and reads its properties. Returns an error if the disk cannot be opened (for
// writing, with `writing`), or if another program uses it. Does not query servers.
Result<GuestDisk> inspect_disk(const GuestDiskName& name, bool writing);

// Warns about internal snapshots and a backing file: they keep trimmed data allocated.
void warn_of_kept_data(const GuestDisk& disk, Observer& observer);

}  // namespace vc::appliance
