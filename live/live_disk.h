// One disk of a running guest, and the steps that replace it.
//
//     1. DISK.bak becomes a second name of the file
//     2. the guest gets the overlay .DISK.live1 over DISK                        kOnOverlay
//     3. the overlay is copied to .DISK.live over DISK.bak, and the guest moves  kOnSecond
//     4. DISK.bak, which nothing writes to, is copied to .DISK.fresh, and verified
//     5. .DISK.fresh is renamed to DISK
//     6. the second overlay is copied into DISK, and the guest moves             kOnFresh
//
// QEMU opens a file again by its name when it turns writable. So no name that QEMU knows may get
// another file: step 3 makes QEMU forget the name DISK before step 5 gives it to the fresh image.
//
// Undo goes back the same way: the second overlay is copied to a new first one over DISK, which is
// then committed.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/result.h"
#include "live/block_job.h"
#include "live/context.h"
#include "live/run_disk.h"

namespace vc::live {

// Where the guest's writes go, or would go after its next start.
enum class Place {
  kOnDisk,     // DISK, the file from before the run
  kOnOverlay,  // .DISK.live1 over DISK
  kOnSecond,   // .DISK.live over DISK.bak
  kOnFresh,    // DISK, the fresh image
};

class LiveDisk : public RunDisk {
 public:
  // For a new run. Returns an error with the reason if the disk cannot be optimized while the guest
  // runs. Changes nothing. `context` must outlive the object.
  static Result<std::unique_ptr<LiveDisk>> check(const Context& context, const std::string& target);
  // For a run that was stopped: takes over its journal.
  LiveDisk(const Context& context, LiveFolder folder, Journal journal)
      : RunDisk(context, std::move(folder), std::move(journal), context.domain.name()),
        context_(context) {}

  // Step 1, and the file of the overlay of step 2.
  Result<void> begin();
  // The rest of step 2 is taken for all disks at once, outside.

  // `running`: the domain runs; otherwise the place is that of its next start.
  Result<Place> place(bool running) const;
  // Takes the remaining steps. The guest runs. Returns false if the gain is too small: the caller
  // then calls undo().
  Result<bool> finish();

  // Returns true if undo() was stopped while it committed the overlay. QEMU then has DISK open for
  // writing, also after the end of the job, and cannot open DISK.bak: only undo() leads to an end.
  bool is_committing() const { return record().step.starts_with("undo-commit"); }

  // Brings a running guest back to the disk as it was, and removes all files of the run. Returns
  // an error if the guest is on the fresh image already.
  Result<void> undo();
  // The same while the domain is shut off, for its next start.
  Result<void> undo_offline();

  // For a guest on the fresh image: removes what the run has left beside it.
  Result<void> clean_up() { return tidy_fresh(); }

  // Reads the guest's requests, for the report.
  void measure_requests() { meter_.count_requests(context_.domain.requests(target())); }

 private:
  LiveDisk(const Context& context, LiveFolder folder)
      : RunDisk(context, std::move(folder), context.domain.name()), context_(context) {}
  Result<void> check_definition(const libvirt::DiskChain& disk);

  // Records `step` in the journal, waits for the job, and moves the guest to its destination.
  Result<void> move_guest(const std::string& step, Patience patience);
  Result<void> take_second_overlay();
  Result<void> put_fresh();
  Result<void> finish_mirror();
  Result<void> take_first_overlay_again();
  Result<void> commit_first_overlay();
  bool is_old_disk() const { return inode_of(folder_, folder_.disk()) == record().inode; }

  const Context& context_;
};

}  // namespace vc::live
