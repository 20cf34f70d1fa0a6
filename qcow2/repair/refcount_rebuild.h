// Rebuilds all refcounts.
#pragma once

#include "base/result.h"
#include "qcow2/check/checker.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Writes a new refcount table and new blocks past the end of the file and from cluster `start` on,
// with counts from all references.  Then points the header to them, which frees the old ones.  An
// error if a count exceeds the width of the counts.
Result<void> rebuild_refcounts(Storage& storage, Checker& checker, uint64_t start,
                               CheckObserver& observer);

}  // namespace vc::qcow2
