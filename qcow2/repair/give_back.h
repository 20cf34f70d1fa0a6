// Gives the space of free clusters back to the file system.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "qcow2/check/checker.h"
#include "qcow2/repair/undo_storage.h"

namespace qcow2 {

struct GivenBack {
  uint64_t bytes = 0;      // that held data, or lay past the last cluster in use
  bool undo_full = false;  // it ended early: the undo file had no space
};

// Makes holes of the clusters that nothing refers to, and cuts the file after the last one in use.
// The counts must be right and on the disk, and all references known.  May be interrupted at any
// point.
Result<GivenBack> give_back_free_clusters(UndoStorage& storage, Checker& checker,
                                          CheckObserver& observer);

// The same for an image that nobody else uses, if there is anything to give back: refcount blocks
// are read for that.  Only if there is, the image is checked, and nothing is done unless it is
// sound.  Returns bytes.
Result<uint64_t> give_back_if_sound(const std::shared_ptr<Storage>& storage);

}  // namespace qcow2
