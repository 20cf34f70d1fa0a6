// A refcount block that data lie on moves to a place of its own.
#pragma once

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace qcow2 {

// Copies the block of entry `index` of the refcount table past the end of the file, and points the
// table there; the data keep the cluster, and read as before.  The copy is on the disk, and
// counted, before the table points to it.  False, and nothing is written, if no good block counts
// the new place.
Result<bool> move_refcount_block(Storage& storage, const Header& header, uint64_t index);

}  // namespace qcow2
