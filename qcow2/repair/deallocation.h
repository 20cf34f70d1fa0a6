// Deallocates free clusters in the filesystem.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "qcow2/check/checker.h"
#include "qcow2/repair/undo_storage.h"

namespace vc::qcow2 {

struct Deallocated {
  uint64_t bytes = 0;      // data of free clusters, and bytes past the last used cluster
  bool undo_full = false;  // stopped early: no space for the undo file
};

// Punches holes for unreferenced clusters, and truncates the file after the last used one. The
// refcounts must be correct and on disk, and all references known. May be interrupted at any time.
Result<Deallocated> deallocate_free_clusters(UndoStorage& storage, Checker& checker,
                                             CheckObserver& observer);

// Does the same for an image that no other process uses.  First reads the refcount blocks to see
// whether there is anything to deallocate; only then checks the image, and does nothing unless it
// is consistent.  Returns bytes.
Result<uint64_t> deallocate_if_sound(const std::shared_ptr<Storage>& storage);

}  // namespace vc::qcow2
