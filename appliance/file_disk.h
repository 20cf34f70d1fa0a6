// A guest's disk in a file that is trimmed in this process, without a server.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "appliance/guest_disk.h"
#include "base/cancel.h"
#include "base/result.h"
#include "guest/reading/ranges.h"
#include "qcow2/read/chain.h"
#include "qcow2/read/disk.h"
#include "qcow2/write/disk_writer.h"

namespace vc::appliance {

class FileDisk {
 public:
  // Opens a local disk that `look_at` has described.  With `writing` the image is locked for
  // writing until the object is gone; `disk` must stay, since it holds the lock of a raw file.
  // Returns an error for an image whose clusters cannot read as zeros.
  static Result<std::unique_ptr<FileDisk>> open(const GuestDisk& disk, bool writing);

  const qcow2::Disk& disk() const { return writer_ ? writer_->disk() : *disk_; }

  // Returns the bytes that the disk stores.
  Result<guest::Ranges> data() const;

  struct Plan {
    guest::Ranges discarded;  // what `discard` is to be called with: it takes space in the file
    guest::Ranges data;       // bytes of that which are data now
  };
  // Returns what of `free` can be given back: whole clusters or subclusters of an image, and of
  // compressed clusters only those that are free as a whole.
  Result<Plan> plan(const guest::Ranges& free) const;

  // Makes all ranges read as zeros and deallocates them.  What is done when it is cancelled or
  // fails stays done.  `disk` must have been opened for writing.
  Result<void> discard(const guest::Ranges& ranges, const Cancel& cancel);

  // Commits what was discarded and shortens the file.  Nothing may be called after it.
  Result<void> close();

 private:
  explicit FileDisk(const GuestDisk& disk) : name_(disk.name) {}
  Result<void> open_raw(const GuestDisk& disk);
  Result<void> open_image(const GuestDisk& disk, bool writing);
  guest::Ranges in_whole_units(const guest::Ranges& ranges) const;
  void add(const qcow2::Extent& extent, const guest::Range& within, guest::Ranges::Builder& all,
           guest::Ranges::Builder& data) const;
  Result<void> punch(uint64_t at, uint64_t length) const;

  const std::string name_;
  std::optional<qcow2::Chain> chain_;          // of an image
  std::shared_ptr<FileStorage> raw_;           // of a raw file
  std::unique_ptr<qcow2::DiskWriter> writer_;  // of an image that is written
  std::optional<qcow2::Disk> disk_;            // if there is no writer
  uint64_t unit_ = 0;                          // that can be deallocated, bytes
  uint64_t cluster_ = 0;                       // bytes; of a raw file the same as unit_
  bool keeps_places_ = false;  // a zeroed cluster keeps its place, in an external data file
};

}  // namespace vc::appliance
