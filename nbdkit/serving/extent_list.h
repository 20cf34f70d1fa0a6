// A disk's map in NBD's terms.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "qcow2/read/disk.h"

namespace plugin {

struct NbdExtent {
  uint64_t offset;
  uint64_t length;  // bytes, at least 1
  uint32_t type;    // NBDKIT_EXTENT_* flags
};

// What is at [offset, offset + count), where clusters that are holes of their file are holes here,
// too: extents in order, without gap or overlap, none of them
// beyond that range (more than 4 GiB in one go ends an nbdkit that is older than 1.38:
// CVE-2025-47711), and neighbours of different types.  Covers `offset`; stops early when the map is
// very fragmented or the clusters very many, or after the first extent if `one`.
qcow2::Result<std::vector<NbdExtent>> list_extents(const qcow2::Disk& disk, uint64_t offset,
                                                   uint64_t count, bool one);

}  // namespace plugin
