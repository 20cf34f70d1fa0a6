#include "live/live_disk.h"

#include <fmt/format.h>

#include <utility>

#include "live/disk_checks.h"
#include "live/frozen_base.h"
#include "live/overlay_commit.h"

namespace vc::live {

Result<Place> LiveDisk::place(bool running) const {
  ASSIGN_OR_RETURN(const libvirt::DiskChain disk, context_.domain.disk(target(), !running));
  const std::string& top = disk.top();
  if (folder_.is(top, folder_.overlay())) return Place::kOnOverlay;
  if (folder_.is(top, folder_.second_overlay())) return Place::kOnSecond;
  if (folder_.is(top, folder_.disk())) return is_old_disk() ? Place::kOnDisk : Place::kOnFresh;
  return fail(Error::invalid(
      fmt::format("{}: disk {} is '{}', which is no file of this run: restore the definition of "
                  "the domain first",
                  context_.domain.name(), target(), top)));
}

Result<void> LiveDisk::begin() {
  meter_.count_requests(context_.domain.requests(target()));
  ASSIGN_OR_RETURN(Record record, new_record(context_, folder_));
  record.uuid = context_.domain.uuid();
  record.target = target();
  RETURN_IF_ERROR(begin_journal(std::move(record)));
  RETURN_IF_ERROR(journal_->begin("overlay"));
  // libvirt would not flush the file before it names it in the definition of the domain.
  return create_overlay(folder_, folder_.overlay(), folder_.disk(), owner());
}

Result<void> LiveDisk::move_guest(const std::string& step, Patience patience) {
  RETURN_IF_ERROR(wait_until_ready(context_, folder_, target(), patience));
  // While a job runs, libvirt makes no snapshots.
  RETURN_IF_ERROR(check_no_new_snapshots(folder_));
  RETURN_IF_ERROR(journal_->begin(step));
  ASSIGN_OR_RETURN(const Seconds pause, while_paused(context_, {&*journal_}, [this] {
                     return context_.domain.pivot(target());
                   }));
  meter_.count_pause(pause);
  return {};
}

// Step 3.
Result<void> LiveDisk::take_second_overlay() {
  meter_.begin_step("second overlay", "Letting QEMU know the disk as " + folder_.backup());
  RETURN_IF_ERROR(journal_->begin("second-overlay"));
  RETURN_IF_ERROR(end_job(context_, target()));
  RETURN_IF_ERROR(folder_.remove_unused(folder_.second_overlay()));
  RETURN_IF_ERROR(create_overlay(folder_, folder_.second_overlay(), folder_.backup(), owner()));
  RETURN_IF_ERROR(context_.domain.start_copy(target(), folder_.path_to(folder_.second_overlay())));
  RETURN_IF_ERROR(move_guest("second-overlay-pivot", Patience::kUntilCancelled));
  return folder_.remove_unused(folder_.overlay());
}

// Step 5, and the block copy of step 6.
Result<void> LiveDisk::put_fresh() {
  if (context_.cancel.requested()) return fail(Error::cancelled());
  meter_.begin_step("swap", "Moving the guest to the fresh image");
  RETURN_IF_ERROR(journal_->begin("swap"));
  decided_ = true;
  RETURN_IF_ERROR(folder_.directory().rename(folder_.fresh(), folder_.disk(), 0));
  RETURN_IF_ERROR(folder_.directory().flush());
  RETURN_IF_ERROR(journal_->begin("mirror"));
  const std::string disk = folder_.path_to(folder_.disk());
  auto started = context_.domain.start_copy(target(), disk);
  // AppArmor: the profile may name the file as a backing file until an attempt has failed.
  if (!started) started = context_.domain.start_copy(target(), disk);
  RETURN_IF_ERROR(started);
  return finish_mirror();
}

// Step 6, from a block copy that runs.
Result<void> LiveDisk::finish_mirror() {
  decided_ = true;
  return move_guest("mirror-pivot", Patience::kUntilFull);
}

Result<bool> LiveDisk::finish() {
  ASSIGN_OR_RETURN(Place at, place(true));
  if (at == Place::kOnDisk)
    return fail(Error::invalid(report_.disk + ": the guest does not write to an overlay"));
  if (at == Place::kOnOverlay) {
    RETURN_IF_ERROR(take_second_overlay());
    at = Place::kOnSecond;
  }
  if (at == Place::kOnSecond) {
    ASSIGN_OR_RETURN(const libvirt::DiskChain now, context_.domain.disk(target(), false));
    if (now.mirror && folder_.is(now.mirror->path, folder_.disk()) && !is_old_disk()) {
      RETURN_IF_ERROR(finish_mirror());
    } else {
      RETURN_IF_ERROR(end_job(context_, target()));
      // Step 4.
      RETURN_IF_ERROR(journal_->begin("copy"));
      ASSIGN_OR_RETURN(const bool worth, copy_base());
      if (!worth) return false;
      RETURN_IF_ERROR(put_fresh());
    }
  }
  meter_.count_requests(context_.domain.requests(target()));
  RETURN_IF_ERROR(tidy_fresh());
  return true;
}

// Moves the guest from the second overlay back to the first one, over DISK.
Result<void> LiveDisk::take_first_overlay_again() {
  RETURN_IF_ERROR(journal_->begin("undo-overlay"));
  if (!folder_.are_same(folder_.disk(), folder_.backup()))
    RETURN_IF_ERROR(folder_.link_over(folder_.backup(), folder_.disk()));
  RETURN_IF_ERROR(folder_.remove_unused(folder_.overlay()));
  RETURN_IF_ERROR(create_overlay(folder_, folder_.overlay(), folder_.disk(), owner()));
  RETURN_IF_ERROR(context_.domain.start_copy(target(), folder_.path_to(folder_.overlay())));
  RETURN_IF_ERROR(move_guest("undo-overlay-pivot", Patience::kUntilReady));
  return folder_.remove_unused(folder_.second_overlay());
}

Result<void> LiveDisk::commit_first_overlay() {
  RETURN_IF_ERROR(journal_->begin("undo-commit"));
  RETURN_IF_ERROR(context_.domain.start_commit(target()));
  return move_guest("undo-commit-pivot", Patience::kUntilReady);
}

Result<void> LiveDisk::undo() {
  ASSIGN_OR_RETURN(Place at, place(true));
  if (at == Place::kOnFresh)
    return fail(Error::invalid(report_.disk + ": the guest writes to the fresh image already"));
  RETURN_IF_ERROR(check_no_new_snapshots(folder_));
  meter_.begin_step("undo", "Bringing the guest back to its disk");
  RETURN_IF_ERROR(end_job(context_, target()));
  if (at == Place::kOnSecond) {
    RETURN_IF_ERROR(take_first_overlay_again());
    at = Place::kOnOverlay;
  }
  if (at == Place::kOnOverlay) RETURN_IF_ERROR(commit_first_overlay());
  meter_.count_requests(context_.domain.requests(target()));
  return tidy_original();
}

Result<void> LiveDisk::undo_offline() {
  ASSIGN_OR_RETURN(const Place at, place(false));
  if (at == Place::kOnFresh)
    return fail(Error::invalid(report_.disk + ": is the fresh image already"));
  RETURN_IF_ERROR(check_no_new_snapshots(folder_));
  meter_.begin_step("undo", "Writing the guest's changes back into its disk");
  if (at == Place::kOnSecond) {
    RETURN_IF_ERROR(journal_->begin("undo-offline"));
    RETURN_IF_ERROR(commit_overlay(folder_, folder_.second_overlay(), folder_.backup(),
                                   context_.progress, context_.cancel));
    if (!folder_.are_same(folder_.disk(), folder_.backup()))
      RETURN_IF_ERROR(folder_.link_over(folder_.backup(), folder_.disk()));
  } else if (at == Place::kOnOverlay) {
    RETURN_IF_ERROR(journal_->begin("undo-offline"));
    RETURN_IF_ERROR(commit_overlay(folder_, folder_.overlay(), folder_.disk(), context_.progress,
                                   context_.cancel));
  }
  if (at != Place::kOnDisk) RETURN_IF_ERROR(context_.domain.set_source(target(), report_.disk));
  return tidy_original();
}

}  // namespace vc::live
