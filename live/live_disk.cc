#include "live/live_disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/retry.h"
#include "live/attributes.h"
#include "live/block_job.h"
#include "live/disk_checks.h"
#include "live/frozen_base.h"
#include "live/overlay_commit.h"
#include "storage/file_storage.h"

namespace vc::live {

LiveDisk::LiveDisk(const Context& context, LiveFolder folder, Journal journal)
    : context_(context), folder_(std::move(folder)), journal_(std::move(journal)) {
  const Record& record = *journal_->record();
  report_.domain = context_.domain.name();
  report_.target = record.target;
  report_.disk = folder_.path_to(folder_.disk());
  if (record.keep_backup) report_.backup = folder_.path_to(folder_.backup());
}

bool LiveDisk::is_old_disk() const {
  const auto status = folder_.directory().status(folder_.disk());
  return status && status->st_ino == journal_->record()->inode;
}

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
  ASSIGN_OR_RETURN(auto journal,
                   Journal::create(folder_.directory(), folder_.journal(), std::move(record)));
  journal_.emplace(std::move(journal));
  return folder_.link_over(folder_.disk(), folder_.backup());
}

Result<void> LiveDisk::move_guest(const std::string& step, Patience patience) {
  RETURN_IF_ERROR(wait_until_ready(context_, folder_, target(), patience));
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
  // A checkpoint may have been made meanwhile.
  RETURN_IF_ERROR(check_checkpoints());
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

Result<void> LiveDisk::tidy_fresh() {
  meter_.begin_step("clean up", "Removing the overlays");
  RETURN_IF_ERROR(journal_->begin("clean-up"));
  for (const std::string& name : {folder_.overlay(), folder_.second_overlay(), folder_.fresh()})
    RETURN_IF_ERROR(folder_.remove_unused(name));
  const Record& record = *journal_->record();
  const auto status = folder_.directory().status(folder_.backup());
  if (status && status->st_ino == record.inode) {
    // libvirt leaves the owner of a backing file.
    ASSIGN_OR_RETURN(const Descriptor old,
                     folder_.directory().open_file(folder_.backup(), O_RDONLY));
    if (retry(::fchown, old.get(), record.user, record.group) != 0)
      return fail(Error::system(errno, folder_.path_to(folder_.backup()) + ": set its owner"));
    if (!record.keep_backup) RETURN_IF_ERROR(folder_.remove_unused(folder_.backup()));
  }
  RETURN_IF_ERROR(journal_->remove(folder_.directory()));
  if (report_.after.file.length == 0)
    RETURN_IF_ERROR(optimize::measure(report_.disk, report_.after));
  report_.outcome = LiveDiskReport::Outcome::kOptimized;
  meter_.end_step();
  return {};
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
      ASSIGN_OR_RETURN(const bool worth,
                       copy_frozen_base(context_, folder_, owner(), meter_, report_));
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

Result<void> LiveDisk::tidy_original() {
  RETURN_IF_ERROR(journal_->begin("undo-clean-up"));
  for (const std::string& name : {folder_.overlay(), folder_.second_overlay(), folder_.fresh()})
    RETURN_IF_ERROR(folder_.remove_unused(name));
  if (folder_.are_same(folder_.disk(), folder_.backup())) {
    RETURN_IF_ERROR(folder_.directory().remove(folder_.backup()));
    RETURN_IF_ERROR(folder_.directory().flush());
  }
  RETURN_IF_ERROR(journal_->remove(folder_.directory()));
  report_.outcome = LiveDiskReport::Outcome::kUndone;
  report_.backup.clear();
  meter_.end_step();
  return {};
}

Result<void> LiveDisk::undo() {
  ASSIGN_OR_RETURN(Place at, place(true));
  if (at == Place::kOnFresh)
    return fail(Error::invalid(report_.disk + ": the guest writes to the fresh image already"));
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
