// Moves a refcount block whose cluster is also used by data.
#pragma once

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Copies the block of entry `index` of the refcount table past the end of the file, and updates the
// table.  The data keeps the cluster and is unchanged.  The copy is on disk and counted before the
// table points to it.  Returns false without a write if no valid block counts the new place.
Result<bool> move_refcount_block(Storage& storage, const Header& header, uint64_t index);

}  // namespace vc::qcow2
