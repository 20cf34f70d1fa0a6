// Writes refcounts to the file; the caller must not change the image concurrently.
#pragma once

#include "base/result.h"
#include "qcow2/refcounts/refcounts.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Writes the changes: the blocks, then the table that points to them, then the header's pointer to
// a moved table, each flushed before the next.  On an error the changes are kept for a retry.
// Frees the old table before it returns.
Result<void> write_refcounts(Storage& storage, Refcounts& refcounts);

}  // namespace vc::qcow2
