// The map of a disk as NBD extents.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "qcow2/read/disk.h"

namespace vc::nbdkit {

struct NbdExtent {
  uint64_t offset;
  uint64_t length;  // bytes, at least 1
  uint32_t type;    // NBDKIT_EXTENT_* flags
};

// Returns the extents of [offset, offset + count). Clusters that are holes of their file are holes
// here, too. Extents are in order, without gap or overlap, and within the range (more than 4 GiB
// per call crashes nbdkit before 1.38: CVE-2025-47711). Adjacent extents have different types.
// Covers at least `offset`. Stops early if there are very many extents or clusters, or after the
// first extent if `one`.
Result<std::vector<NbdExtent>> list_extents(const qcow2::Disk& disk, uint64_t offset,
                                            uint64_t count, bool one);

}  // namespace vc::nbdkit
