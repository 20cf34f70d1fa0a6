// Rewrites a snapshot table with missing or excess data, without loss.
#pragma once

#include <memory>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Adds missing VM state sizes and disk sizes to the rows of a version 3 image (as QEMU: from the
// 32-bit field, and from the size of the image's disk). Drops extra data past the limit, which no
// known program writes. Corrects a snapshot count past the limit to the actual number of rows.
// Returns false without a write if the table is not readable as one, or is correct.
//
// No refcount in the image may be too low. The new table is in the file and has refcounts before
// the header points to it. The old table leaks.
Result<bool> repair_snapshot_table(const std::shared_ptr<Storage>& storage, const Header& header);

}  // namespace vc::qcow2
