// Repairs the damage that a check finds.
//
// Works in rounds: check, repair one kind of damage, flush.  The order is: invalid table entries,
// and descriptors with a wrong length (in a deep check); then counts; then COPIED, which depends on
// the counts.  Counts that are too low are raised before others are lowered, so that no used
// cluster becomes free in between.  If single counts cannot be repaired, all refcounts are rebuilt
// past the end of the file before the header points to them in one write.
//
// Finally, when no damage is left, free clusters become holes, and the file is truncated after the
// last used cluster (deallocation.h).
//
// So after an interruption the image is no worse than before, and a new repair continues.  An undo
// file stores all overwritten data first (undo_storage.h).
//
// Damage may hide references: a table may be unreadable, or an entry may point to a wrong place.
// The clusters that it referred to look like leaks but are data.  So with such damage
// (CheckSums::references_unknown), unless requested, no count is lowered, no cluster gets the
// COPIED flag, and the refcounts are not rebuilt.  An entry is repaired only if its table does not
// share its clusters: otherwise the place may contain something else.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "qcow2/check/checker.h"
#include "storage/storage.h"

namespace vc::qcow2 {

struct RepairOptions {
  enum class What { kLeaks, kAll } what = What::kAll;
  CheckOptions check;
  // Frees clusters that seem unreferenced even if references may be hidden (but not if a table is
  // unreadable), as qemu-img does.
  bool lossy = false;
  // The path of the undo file, which is created on the first write.  Empty: no undo file.
  std::string undo_path;
  bool deallocate = true;  // deallocate free clusters
};

struct RepairResult {
  CheckSums before;
  CheckSums after;
  uint64_t leaks_fixed = 0;
  uint64_t corruptions_fixed = 0;
  bool has_written = false;  // and an undo file exists
  uint64_t deallocated = 0;  // bytes of free clusters that became holes or were truncated
  bool undo_full = false;    // free clusters were left: no space for the undo file
  // Wrong counts were left, since references may be unknown or refcount blocks are unreliable.
  bool counts_left = false;
  // Entries were left, since their tables share clusters with other structures.
  bool entries_left = false;
};

// Passes the findings of the first check to `observer`.  No other process may use `storage`.  An
// error after the first write names the undo file.
Result<RepairResult> repair(std::shared_ptr<Storage> storage, const RepairOptions& options,
                            CheckObserver& observer);

}  // namespace vc::qcow2
