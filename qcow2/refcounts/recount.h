// Mends an image that is marked dirty.
#pragma once

#include <memory>

#include "base/result.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/references.h"
#include "storage/storage.h"

namespace qcow2 {

// The dirty bit (QCOW2 text, "Incompatible features") says that the refcounts may be wrong while
// all tables are right: a writer with lazy refcounts did not come to its end.  Counts all
// references anew, writes the refcounts that follow from them, sets COPIED where a count is one and
// nowhere else in the active tables, and clears the bit.  Interrupted at any moment, the image is
// as sound as it was, and still marked.
//
// Where nothing was marked (QEMU has no such bit in version 2) it does the same.
//
// What it cannot mend, because the tables contradict each other or the counts have no place in the
// file, is an error that says so.
Result<void> recount(const std::shared_ptr<Storage>& storage, const Image& image,
                     const References::TableDone& table_done = {});

// An error that names the first cluster that is counted less often than it is referred to: the next
// allocation might take it for free.  Changes nothing.
Result<void> check_counts(const std::shared_ptr<Storage>& storage, const Image& image,
                          const References::TableDone& table_done = {});

}  // namespace qcow2
