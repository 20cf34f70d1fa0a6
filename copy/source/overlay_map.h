// The map of what a chain has on top of one of its backing files.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/extent.h"

namespace vc::copy {

// The map of a disk for a copy that keeps a backing file. The map has whole units (clusters of the
// copy). kUnallocated: the copy leaves the unit to the backing file. If any image above the backing
// file defines a part of a unit, the copy stores the whole unit as the disk reads. Zeros are kZero,
// since they may hide data of the backing file.
class OverlayMap {
 public:
  // `disk`: with the backing file. `above`: without it. `unit`: bytes, a power of two.
  OverlayMap(qcow2::Disk disk, qcow2::Disk above, uint64_t unit)
      : disk_(std::move(disk)), above_(std::move(above)), unit_(unit) {}

  // Appends extents from `at`, a multiple of the unit, without gap or overlap. They cover `length`
  // bytes or the first part of them.
  Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) const;

 private:
  Result<void> copy_units(GuestOffset at, GuestOffset end, std::vector<qcow2::Extent>& out) const;

  qcow2::Disk disk_;
  qcow2::Disk above_;
  uint64_t unit_;
};

}  // namespace vc::copy
