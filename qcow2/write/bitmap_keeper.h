// Keeps the persistent bitmaps of a disk true while it is written.
//
//     flags: in use | guest data, tables, … | new bitmaps and directory: see bitmap_rewrite.h
//
// with a flush at each bar.  So after a crash, an enabled bitmap is in use, and therefore not
// valid, or has the bits of all changes.  Bitmaps that are disabled or in use stay as they are.
#pragma once

#include <memory>

#include "base/result.h"
#include "qcow2/bitmaps/changed_ranges.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/write/bitmap_rewrite.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class BitmapKeeper {
 public:
  // `directory` must be free of faults.
  BitmapKeeper(std::shared_ptr<Storage> storage, const Header& header, BitmapDirectory directory);

  const BitmapDirectory& directory() const { return directory_; }

  // Marks the enabled bitmaps in use.  Must return before the first write to the disk.
  Result<void> begin();

  // Records that a range may read otherwise than before.  Thread-safe.
  void add(GuestOffset at, uint64_t length) {
    if (changes_) changes_->add(at, length);
  }

  // Returns whether store () has bitmaps to write.
  bool has_begun() const { return begun_; }
  // Writes the enabled bitmaps with the recorded changes.
  Result<void> store(BitmapRewrite& rewrite) const;

 private:
  const std::shared_ptr<Storage> storage_;
  const uint64_t disk_size_;
  const BitmapDirectory directory_;
  std::unique_ptr<ChangedRanges> changes_;  // nullptr: no bitmap is enabled
  bool begun_ = false;
};

}  // namespace vc::qcow2
