// Rebuilds all refcounts.
#pragma once

#include "base/result.h"
#include "qcow2/check/checker.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// Writes a new refcount table and new blocks past the end of the file and from cluster `start` on,
// with refcounts from all references. Then makes the header point to them, which frees the old
// ones. Returns an error if a refcount exceeds its width.
Result<void> rebuild_refcounts(Storage& storage, Checker& checker, uint64_t start,
                               CheckObserver& observer);

}  // namespace vc::qcow2
