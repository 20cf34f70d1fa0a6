// What a chain of images has on top of one of its backing files.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/extent.h"

namespace copy {

// The map of a disk for a copy that keeps a backing file: in whole units (clusters of the copy),
// which the copy either has or leaves to the backing file.  kUnallocated is what it leaves; where
// anything above the backing file says something of a unit, all of that unit is copied as the whole
// disk reads, and zeros are kZero, since they may hide data behind them.
class OverlayMap {
 public:
  // `disk`: with the backing file; `above`: only what is on top of it.  `unit`: bytes, a power of
  // two.
  OverlayMap(qcow2::Disk disk, qcow2::Disk above, uint64_t unit)
      : disk_(std::move(disk)), above_(std::move(above)), unit_(unit) {}

  // Appends extents from `at`, a multiple of the unit, on, without gap or overlap: for `length`
  // bytes, or a first part of them.
  qcow2::Result<void> map(qcow2::GuestOffset at, uint64_t length,
                          std::vector<qcow2::Extent>& out) const;

 private:
  qcow2::Result<void> copy_units(qcow2::GuestOffset at, qcow2::GuestOffset end,
                                 std::vector<qcow2::Extent>& out) const;

  qcow2::Disk disk_;
  qcow2::Disk above_;
  uint64_t unit_;
};

}  // namespace copy
