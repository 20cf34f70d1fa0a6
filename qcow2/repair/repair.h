// Mends what a check finds.
//
// In rounds of: check, mend one kind of thing, flush.  First entries of tables that the format does
// not allow, and (of a deep check) descriptors that say a wrong length; then counts; then COPIED,
// which follows from the counts.  Counts that are too low go up before those that are too high go
// down, so that at no moment a cluster in use counts as free that did not before; and counts that
// cannot be mended one by one are written anew behind the end of the file, before the header points
// there in one write.
//
// At last, when nothing is wrong any more, free clusters become holes, and the file ends after the
// last cluster in use (give_back.h).
//
// So whenever it is interrupted the image is no worse than it was, and doing it again goes on. What
// is overwritten is in an undo file first (undo_storage.h).
//
// A damaged image may hide references: a table that cannot be read, an entry that points to another
// place than it once did.  The clusters that it referred to look like leaks, and are data.  So
// while anything of the kind is found (CheckSums::references_unknown) no count goes down, no
// cluster is given the COPIED flag, and the counts are not written anew, unless that was asked for.
// And an entry is mended only where its table has its clusters to itself: else it may be something
// else that stands there.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "qcow2/check/checker.h"
#include "storage/storage.h"

namespace qcow2 {

struct RepairOptions {
  enum class What { kLeaks, kAll } what = What::kAll;
  CheckOptions check;
  // Free what nobody seems to refer to even where references may be hidden (but not where a table
  // could not be read), as qemu-img does.
  bool lossy = false;
  // Where the undo file is to be; made only if something is written.  Empty: none is made.
  std::string undo_path;
  bool give_back = true;  // the space of free clusters
};

struct RepairResult {
  CheckSums before;
  CheckSums after;
  uint64_t leaks_fixed = 0;
  uint64_t corruptions_fixed = 0;
  bool has_written = false;  // and there is an undo file
  uint64_t given_back = 0;   // bytes of free clusters: holes now, or past the new end of the file
  bool undo_full = false;    // free clusters were left, since the undo file had no space for them
  // Counts that look wrong were left, since not all references are known, or since the blocks of
  // counts cannot be trusted.
  bool counts_left = false;
  // Entries were left whose table shares its clusters with something else.
  bool entries_left = false;
};

// `observer` is told of what the first check finds.  `storage` is nobody else's.  An error after
// something was written names the undo file.
Result<RepairResult> repair(std::shared_ptr<Storage> storage, const RepairOptions& options,
                            CheckObserver& observer);

}  // namespace qcow2
