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
#include "live/overlay_commit.h"
#include "live/watched_copy.h"
#include "optimize/kept_layout.h"
#include "optimize/own_files.h"
#include "qcow2/build/create_image.h"
#include "qcow2/format/header.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

using Clock = std::chrono::steady_clock;

std::optional<Seconds> mean(uint64_t nanoseconds, uint64_t requests) {
  if (requests == 0) return std::nullopt;
  return Seconds(static_cast<double>(nanoseconds) / 1e9 / static_cast<double>(requests));
}

}  // namespace

LiveDisk::LiveDisk(const Context& context, LiveFolder folder, Journal journal)
    : context_(context), folder_(std::move(folder)), journal_(std::move(journal)) {
  const Record& record = *journal_->record();
  report_.domain = context_.domain.name();
  report_.target = record.target;
  report_.disk = folder_.path_to(folder_.disk());
  if (record.keep_backup) report_.backup = folder_.path_to(folder_.backup());
}

void LiveDisk::begin_step(const std::string& name, const std::string& line) {
  end_step();
  report_.steps.push_back({name, {}});
  step_start_ = Clock::now();
  context_.observer.step(line);
}

void LiveDisk::end_step() {
  if (!report_.steps.empty() && report_.steps.back().elapsed.count() == 0)
    report_.steps.back().elapsed = Clock::now() - step_start_;
}

void LiveDisk::count_pause(Seconds pause) {
  ++report_.waits.pauses;
  report_.waits.longest_pause = std::max(report_.waits.longest_pause, pause);
}

void LiveDisk::measure_requests() {
  const auto now = context_.domain.requests(target());
  if (!now) return;
  Waits& waits = report_.waits;
  if (!at_start_) {
    at_start_ = *now;
    waits.write_before = mean(now->write_nanoseconds, now->writes);
    waits.flush_before = mean(now->flush_nanoseconds, now->flushes);
    return;
  }
  waits.write_during =
      mean(now->write_nanoseconds - at_start_->write_nanoseconds, now->writes - at_start_->writes);
  waits.flush_during = mean(now->flush_nanoseconds - at_start_->flush_nanoseconds,
                            now->flushes - at_start_->flushes);
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
  measure_requests();
  ASSIGN_OR_RETURN(Record record, new_record());
  ASSIGN_OR_RETURN(auto journal,
                   Journal::create(folder_.directory(), folder_.journal(), std::move(record)));
  journal_.emplace(std::move(journal));
  return folder_.link_over(folder_.disk(), folder_.backup());
}

Result<void> LiveDisk::create_overlay(const std::string& name, const std::string& base) const {
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly_in(folder_.directory(), base));
  ASSIGN_OR_RETURN(const auto header, qcow2::Header::read(*file, qcow2::Header::Purpose::kTell));
  qcow2::BuildOptions build;
  build.size = header.size;
  build.cluster_bits = header.cluster_bits;
  build.extended_l2 = header.extended_l2();
  build.backing_file = base;
  build.backing_format = "qcow2";
  const optimize::PrivateFiles mine;
  const std::string path = folder_.path_to(name);
  ASSIGN_OR_RETURN(const Descriptor made, qcow2::create_image(path, build));
  const Record& record = *journal_->record();
  return carry_rights(file->descriptor(), made.get(), {record.user, record.group}, path);
}

Result<void> LiveDisk::move_guest(const std::string& step, Patience patience) {
  RETURN_IF_ERROR(wait_until_ready(context_, folder_, target(), patience));
  RETURN_IF_ERROR(journal_->begin(step));
  ASSIGN_OR_RETURN(const Seconds pause, while_paused(context_, {&*journal_}, [this] {
                     return context_.domain.pivot(target());
                   }));
  count_pause(pause);
  return {};
}

// Step 3.
Result<void> LiveDisk::take_second_overlay() {
  begin_step("second overlay", "Letting QEMU know the disk as " + folder_.backup());
  RETURN_IF_ERROR(journal_->begin("second-overlay"));
  RETURN_IF_ERROR(end_job(context_, target()));
  RETURN_IF_ERROR(folder_.remove_unused(folder_.second_overlay()));
  RETURN_IF_ERROR(create_overlay(folder_.second_overlay(), folder_.backup()));
  RETURN_IF_ERROR(context_.domain.start_copy(target(), folder_.path_to(folder_.second_overlay())));
  RETURN_IF_ERROR(move_guest("second-overlay-pivot", Patience::kUntilCancelled));
  return folder_.remove_unused(folder_.overlay());
}

copy::CopyOptions LiveDisk::copy_options() const {
  const optimize::OptimizeOptions& options = context_.options.optimize;
  copy::CopyOptions how = options.copy;
  how.source = folder_.path_to(folder_.backup());
  how.source_format = qcow2::Format::kQcow2;
  how.destination = folder_.path_to(folder_.fresh());
  how.format = qcow2::Format::kQcow2;
  how.verify = true;
  how.keep_compression = options.keep_compression;
  return how;
}

Result<bool> LiveDisk::is_worth(const copy::CopyOptions& how) {
  const auto& limit = context_.options.optimize.limit;
  if (!limit) return true;
  begin_step("measure", "Estimating the size of a fresh image");
  qcow2::OpenOptions opening;
  opening.format = qcow2::Format::kQcow2;
  opening.trust = how.trust;
  ASSIGN_OR_RETURN(const auto chain, qcow2::Chain::open(how.source, opening));
  ASSIGN_OR_RETURN(report_.gain, optimize::foretell_gain(how, chain, report_.before.file.blocks,
                                                         report_.before.file.length,
                                                         context_.progress, context_.cancel));
  return report_.gain->is_worth(*limit);
}

// Step 4. Returns false if the gain is too small.
Result<bool> LiveDisk::copy_base() {
  RETURN_IF_ERROR(journal_->begin("copy"));
  RETURN_IF_ERROR(folder_.remove_unused(folder_.fresh()));
  begin_step("check", "Checking the image, to which the guest no longer writes");
  copy::CopyOptions how = copy_options();
  RETURN_IF_ERROR(
      optimize::check_image(how.source, qcow2::Format::kQcow2, report_.before, context_.cancel));
  {
    ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(how.source));
    ASSIGN_OR_RETURN(const auto header, qcow2::Header::read(*file, qcow2::Header::Purpose::kTell));
    optimize::keep_layout(header, how);
  }
  ASSIGN_OR_RETURN(const bool worth, is_worth(how));
  if (!worth) return false;
  begin_step("copy", "Copying the data in use, and verifying the copy");
  {
    const optimize::PrivateFiles mine;
    ASSIGN_OR_RETURN(report_.copied, copy_watched(context_, folder_, how));
  }
  begin_step("check result", "Checking the result");
  RETURN_IF_ERROR(optimize::check_image(how.destination, qcow2::Format::kQcow2, report_.after,
                                        context_.cancel));
  if (!report_.copied.file)
    return fail(Error::invalid(how.destination + ": is not a file that can be swapped"));
  RETURN_IF_ERROR(carry_over(report_.copied.file->get()));
  // QEMU must be able to lock it.
  report_.copied.file.reset();
  return true;
}

Result<void> LiveDisk::carry_over(int fresh) const {
  const std::string path = folder_.path_to(folder_.fresh());
  if (!folder_.directory().holds(folder_.fresh(), FileIdentity::of(fresh)))
    return fail(Error::invalid(path + ": another process has replaced this file"));
  ASSIGN_OR_RETURN(const Descriptor old, folder_.directory().open_file(folder_.backup(), O_RDONLY));
  const Record& record = *journal_->record();
  return carry_rights(old.get(), fresh, {record.user, record.group}, path);
}

// Step 5, and the block copy of step 6.
Result<void> LiveDisk::put_fresh() {
  if (context_.cancel.requested()) return fail(Error::cancelled());
  // A checkpoint may have been made meanwhile.
  RETURN_IF_ERROR(check_checkpoints());
  begin_step("swap", "Moving the guest to the fresh image");
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
  begin_step("clean up", "Removing the overlays");
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
  end_step();
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
      ASSIGN_OR_RETURN(const bool worth, copy_base());
      if (!worth) return false;
      RETURN_IF_ERROR(put_fresh());
    }
  }
  measure_requests();
  RETURN_IF_ERROR(tidy_fresh());
  return true;
}

// Moves the guest from the second overlay back to the first one, over DISK.
Result<void> LiveDisk::take_first_overlay_again() {
  RETURN_IF_ERROR(journal_->begin("undo-overlay"));
  if (!folder_.are_same(folder_.disk(), folder_.backup()))
    RETURN_IF_ERROR(folder_.link_over(folder_.backup(), folder_.disk()));
  RETURN_IF_ERROR(folder_.remove_unused(folder_.overlay()));
  RETURN_IF_ERROR(create_overlay(folder_.overlay(), folder_.disk()));
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
  end_step();
  return {};
}

Result<void> LiveDisk::undo() {
  ASSIGN_OR_RETURN(Place at, place(true));
  if (at == Place::kOnFresh)
    return fail(Error::invalid(report_.disk + ": the guest writes to the fresh image already"));
  begin_step("undo", "Bringing the guest back to its disk");
  RETURN_IF_ERROR(end_job(context_, target()));
  if (at == Place::kOnSecond) {
    RETURN_IF_ERROR(take_first_overlay_again());
    at = Place::kOnOverlay;
  }
  if (at == Place::kOnOverlay) RETURN_IF_ERROR(commit_first_overlay());
  measure_requests();
  return tidy_original();
}

Result<void> LiveDisk::undo_offline() {
  ASSIGN_OR_RETURN(const Place at, place(false));
  if (at == Place::kOnFresh)
    return fail(Error::invalid(report_.disk + ": is the fresh image already"));
  begin_step("undo", "Writing the guest's changes back into its disk");
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
