// Refcounts from nothing.
#pragma once

#include "base/result.h"
#include "qcow2/check/checker.h"
#include "storage/storage.h"

namespace qcow2 {

// Writes a new refcount table and new blocks behind the end of the file, and of all clusters up to
// number `start`, with the counts that follow from all references, and then lets the header point
// there.  What the old ones took is free by this.  An error if the counts of this width cannot say
// what is so.
Result<void> rebuild_refcounts(Storage& storage, Checker& checker, uint64_t start,
                               CheckObserver& observer);

}  // namespace qcow2
