// Repairs an image that is marked dirty.
#pragma once

#include <memory>

#include "base/result.h"
#include "qcow2/read/image.h"
#include "qcow2/refcounts/references.h"
#include "storage/storage.h"

namespace vc::qcow2 {

// The dirty bit (qcow2 specification, "Incompatible features") says that the refcounts may be wrong
// while all tables are correct: a writer with lazy refcounts was interrupted. rebuild_in_place ()
// rebuilds the refcounts from all references, sets COPIED in the active tables exactly where a
// count is one, and clears the bit.  If it is interrupted, the image is as consistent as before and
// still marked.
//
// It does the same if the image is not marked (version 2 has no such bit).
//
// It returns an error if a repair is impossible, because tables contradict each other or counts do
// not fit into the file.
Result<void> rebuild_in_place(const std::shared_ptr<Storage>& storage, const Image& image,
                              const References::TableDone& table_done = {});

// Returns an error that names the first cluster whose count is lower than its references: the next
// allocation might reuse it.  Changes nothing.
Result<void> check_counts(const std::shared_ptr<Storage>& storage, const Image& image,
                          const References::TableDone& table_done = {});

}  // namespace vc::qcow2
