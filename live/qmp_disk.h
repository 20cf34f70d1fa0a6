// One disk of a guest whose QEMU has no libvirt, and the steps that replace it.
//
//     1. DISK.bak becomes a second name of the file
//     2. the guest gets the overlay .DISK.live over DISK.bak; DISK becomes a second name of the
//        overlay                                                                  kOnOverlay
//     3. DISK.bak, which nothing writes to, is copied to .DISK.fresh, and verified
//     4. the overlay is copied into .DISK.fresh, and the guest moves; DISK becomes a second name of
//        the fresh image                                                          kOnFresh
//     5. QEMU opens the fresh image as DISK
//
// After each step, the owner's command starts the guest with what it has written: DISK is the old
// disk, the overlay, or the fresh image. QEMU opens a file again by its name when it turns
// writable: so a name that QEMU knows never gets another file.
//
// Undo goes back the same way: the overlay is copied into DISK.bak, and DISK becomes its second
// name.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/result.h"
#include "live/block_job.h"
#include "live/qmp_context.h"
#include "live/run_disk.h"

namespace vc::live {

// The file to which the guest writes, or would write after its next start.
enum class QmpPlace { kOnDisk, kOnOverlay, kOnFresh };

class QmpDisk : public RunDisk {
 public:
  // For a new run: the disk at `path`; empty: the disk `node` of QEMU. Returns an error with the
  // reason if it cannot be optimized while the guest runs. Changes nothing. `context` must outlive
  // the object.
  static Result<std::unique_ptr<QmpDisk>> check(const QmpContext& context, const std::string& path,
                                                const std::string& node);
  // For a run that was stopped: takes over its journal.
  QmpDisk(const QmpContext& context, LiveFolder folder, Journal journal)
      : RunDisk(context, std::move(folder), std::move(journal), context.name()),
        context_(context) {}

  // Steps 1 and 2.
  Result<void> begin();
  Result<QmpPlace> place() const;
  // Takes the remaining steps. The guest runs. Returns false if the gain is too small: the caller
  // then calls undo().
  Result<bool> finish();
  // Brings the disk back as it was, for a guest that runs or for its next start, and removes all
  // files of the run. Returns an error if it is the fresh image already.
  Result<void> undo();

 private:
  QmpDisk(const QmpContext& context, LiveFolder folder)
      : RunDisk(context, std::move(folder), context.name()), context_(context) {}
  Result<void> check_node(const QmpTop& top);
  Result<void> check_jobs();
  qmp::Opening opening(const std::string& name, const qmp::Node& like) const;
  // Lets QEMU use DISK.bak as the base of the overlay, and forget the name DISK.
  Result<void> change_base(const qmp::Node& overlay);
  Result<void> close_unused();
  Result<void> check_forgotten();
  Result<void> end_jobs();
  Result<void> wait_until_ready(const std::string& id, Patience patience);
  Result<void> wait_for_end(const std::string& id);
  // Copies the overlay into `name`, and moves the guest there. `step` is for the journal.
  Result<void> move_guest(const std::string& name, const std::string& step, Patience patience);
  // Lets QEMU open DISK, a second name of the file of `node`, instead of that. The guest is paused.
  Result<void> open_as_disk(const qmp::Node& node);
  Result<void> complete_opening();
  Result<void> count_requests();
  Result<void> undo_offline(QmpPlace place);

  const QmpContext& context_;
};

}  // namespace vc::live
