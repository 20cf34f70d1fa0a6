// Refcounts on their way into the file, where nothing else changes beside them.
#pragma once

#include "base/result.h"
#include "qcow2/refcounts/refcounts.h"
#include "storage/storage.h"

namespace qcow2 {

// Writes what has changed: the blocks, then the table that points to them, then the header's
// pointer to a table that has moved, each flushed before the next.  On an error the changes are
// kept, for another try.  An old table is free when this returns.
Result<void> write_refcounts(Storage& storage, Refcounts& refcounts);

}  // namespace qcow2
