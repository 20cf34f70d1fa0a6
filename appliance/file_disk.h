// Trims a guest's disk in a file in this process, without a server.
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
  // Opens a local disk that inspect_disk() has described. With `writing`, locks the image for
  // writing while the object lives. `disk` must outlive the object, since `disk` holds the lock of
  // a raw file. Returns an error for an image whose clusters cannot read as zeros.
  static Result<std::unique_ptr<FileDisk>> open(const GuestDisk& disk, bool writing);

  // Returns which file is open: the image itself.
  FileStorage::Identity identity() const {
    return raw_ ? raw_->identity() : chain_->files().front()->identity();
  }

  const qcow2::Disk& disk() const { return writer_ ? writer_->disk() : *disk_; }

  // Returns the ranges with stored data.
  Result<guest::Ranges> data() const;

  struct Plan {
    guest::Ranges discarded;  // ranges for discard(): they take space in the file
    guest::Ranges data;       // parts of them that hold data now
  };
  // Returns what can be deallocated of `free`: whole clusters or subclusters, and compressed
  // clusters only as a whole.
  Result<Plan> plan(const guest::Ranges& free) const;

  // Zeroes and deallocates all ranges. After a cancellation or an error, completed ranges stay
  // deallocated. Needs a disk that was opened for writing.
  Result<void> discard(const guest::Ranges& ranges, const Cancel& cancel);

  // Commits the discards and shrinks the file. No other call may follow.
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
  std::optional<qcow2::Chain> chain_;          // set for an image
  std::shared_ptr<FileStorage> raw_;           // set for a raw file
  std::unique_ptr<qcow2::DiskWriter> writer_;  // set for an image opened for writing
  std::optional<qcow2::Disk> disk_;            // set if there is no writer
  uint64_t unit_ = 0;                          // smallest deallocation, bytes
  uint64_t cluster_ = 0;                       // bytes; same as unit_ for a raw file
  bool keeps_places_ = false;  // external data file: a zeroed cluster stays allocated
};

}  // namespace vc::appliance
