#include "live/qmp_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <thread>
#include <utility>

#include "base/poll_interval.h"
#include "live/disk_checks.h"
#include "live/frozen_base.h"
#include "live/overlay_commit.h"

namespace vc::live {

namespace {

// The names of our nodes and jobs.
constexpr std::string_view kPrefix = "virt-compact-";

// QEMU allows 31 characters. The node of the file has the suffix "-file".
std::string new_node_name() {
  std::random_device random;
  return fmt::format("{}{:08x}", kPrefix, random() & 0xffffffff);
}

}  // namespace

qmp::Opening QmpDisk::opening(const std::string& name, const qmp::Node& like) const {
  qmp::Opening how;
  how.node = new_node_name();
  how.path = folder_.path_to(name);
  how.direct = like.direct;
  how.no_flush = like.no_flush;
  how.detect_zeroes = like.detect_zeroes;
  return how;
}

Result<void> QmpDisk::count_requests() {
  ASSIGN_OR_RETURN(const QmpTop top, find_top(*context_.machine, folder_));
  const qmp::Device& it = top.device;
  meter_.count_requests(libvirt::LiveDomain::Requests{it.writes, it.write_nanoseconds, it.flushes,
                                                      it.flush_nanoseconds});
  return {};
}

Result<void> QmpDisk::begin() {
  RETURN_IF_ERROR(count_requests());
  ASSIGN_OR_RETURN(Record record, new_record(context_, folder_));
  record.qmp = true;
  RETURN_IF_ERROR(begin_journal(std::move(record)));

  meter_.begin_step("overlay", "Giving the guest an overlay to write to");
  RETURN_IF_ERROR(journal_->begin("overlay"));
  RETURN_IF_ERROR(create_overlay(folder_, folder_.second_overlay(), folder_.backup(), owner()));
  ASSIGN_OR_RETURN(const QmpTop top, find_top(*context_.machine, folder_));
  qmp::Opening overlay = opening(folder_.second_overlay(), top.node);
  RETURN_IF_ERROR(context_.machine->open_image(overlay));
  ASSIGN_OR_RETURN(const Seconds pause,
                   while_stopped(context_, folder_, *journal_, [&]() -> Result<void> {
                     RETURN_IF_ERROR(context_.machine->put_on_top(top.node.name, overlay.node));
                     qmp::Node node = top.node;
                     node.name = overlay.node;
                     return change_base(node);
                   }));
  meter_.count_pause(pause);
  return {};
}

Result<void> QmpDisk::change_base(const qmp::Node& overlay) {
  qmp::Opening base = opening(folder_.backup(), overlay);
  base.read_only = true;
  base.detect_zeroes = "off";
  RETURN_IF_ERROR(context_.machine->open_image(base));
  qmp::Opening top = opening(folder_.second_overlay(), overlay);
  top.node = overlay.name;
  top.backing = base.node;
  RETURN_IF_ERROR(context_.machine->change_backing(top));
  RETURN_IF_ERROR(close_unused());
  return check_forgotten();
}

// Closes the files of the run that no disk uses.
Result<void> QmpDisk::close_unused() {
  ASSIGN_OR_RETURN(const QmpTop top, find_top(*context_.machine, folder_));
  const auto is_ours = [&](const qmp::Node& node) {
    for (const std::string& name :
         {folder_.disk(), folder_.backup(), folder_.second_overlay(), folder_.fresh()})
      if (folder_.is(node.file, name)) return node.name != top.node.name;
    return false;
  };
  // An image is closed before its file and its backing file. Nodes in use stay.
  for (unsigned pass = 0; pass < 3; ++pass) {
    ASSIGN_OR_RETURN(const auto nodes, context_.machine->nodes());
    for (const qmp::Node& node : nodes)
      if (is_ours(node)) (void)context_.machine->close(node.name);
  }
  return {};
}

// Returns an error if QEMU still has the old disk open by the name DISK, which the run gives to
// other files.
Result<void> QmpDisk::check_forgotten() {
  ASSIGN_OR_RETURN(const auto nodes, context_.machine->nodes());
  for (const qmp::Node& node : nodes)
    if (folder_.is(node.file, folder_.disk()))
      return fail(Error::invalid(
          fmt::format("{}: node '{}' has {} still open: end the export or other user of it first",
                      report_.domain, node.name, report_.disk)));
  return {};
}

Result<QmpPlace> QmpDisk::place() const {
  ino_t inode = inode_of(folder_, folder_.disk());
  if (context_.machine) {
    ASSIGN_OR_RETURN(const QmpTop top, find_top(*context_.machine, folder_));
    inode = inode_of(folder_, Directory::name_of(top.device.top()));
  }
  if (inode == journal_->record()->inode) return QmpPlace::kOnDisk;
  if (inode != 0 && inode == inode_of(folder_, folder_.second_overlay()))
    return QmpPlace::kOnOverlay;
  return QmpPlace::kOnFresh;
}

Result<void> QmpDisk::end_jobs() {
  ASSIGN_OR_RETURN(const auto jobs, context_.machine->jobs());
  for (const qmp::Job& job : jobs) {
    if (!job.id.starts_with(kPrefix)) continue;
    if (job.status != "concluded") RETURN_IF_ERROR(context_.machine->cancel(job.id));
    (void)wait_for_end(job.id);
  }
  return {};
}

Result<void> QmpDisk::wait_for_end(const std::string& id) {
  while (true) {
    ASSIGN_OR_RETURN(const auto jobs, context_.machine->jobs());
    const auto job =
        std::find_if(jobs.begin(), jobs.end(), [&](const qmp::Job& it) { return it.id == id; });
    if (job == jobs.end()) return fail(Error::protocol(EIO, "the block job has disappeared"));
    if (job->status == "concluded") {
      RETURN_IF_ERROR(context_.machine->dismiss(id));
      if (job->error.empty()) return {};
      return fail(Error::protocol(EIO, fmt::format("{}: the copy of {} has failed: {}",
                                                   report_.domain, report_.disk, job->error)));
    }
    // The guest may be paused for this.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

Result<void> QmpDisk::wait_until_ready(const std::string& id, Patience patience) {
  while (true) {
    ASSIGN_OR_RETURN(const auto jobs, context_.machine->jobs());
    const auto job =
        std::find_if(jobs.begin(), jobs.end(), [&](const qmp::Job& it) { return it.id == id; });
    if (job == jobs.end() || job->status == "concluded") {
      RETURN_IF_ERROR(wait_for_end(id));
      return fail(Error::protocol(EIO, report_.domain + ": another program has ended the copy"));
    }
    if (job->status == "ready") return {};
    if (patience == Patience::kUntilCancelled && context_.cancel.requested())
      return fail(Error::cancelled());
    if (patience != Patience::kUntilReady) RETURN_IF_ERROR(check_reserve(context_, folder_));
    context_.observer.progress(job->done, job->total);
    std::this_thread::sleep_for(kPollInterval);
  }
}

Result<void> QmpDisk::move_guest(const std::string& name, const std::string& step,
                                 Patience patience) {
  RETURN_IF_ERROR(journal_->begin(step));
  RETURN_IF_ERROR(end_jobs());
  RETURN_IF_ERROR(close_unused());
  qmp::Machine& machine = *context_.machine;
  ASSIGN_OR_RETURN(const QmpTop top, find_top(machine, folder_));
  // A lock would keep QEMU from opening the file by its second name.
  qmp::Opening target = opening(name, top.node);
  target.locked = false;
  RETURN_IF_ERROR(machine.open_image(target));
  RETURN_IF_ERROR(machine.start_mirror(target.node, top.device.root, top.node.name, target.node));
  RETURN_IF_ERROR(wait_until_ready(target.node, patience));
  RETURN_IF_ERROR(check_no_new_snapshots(folder_));
  RETURN_IF_ERROR(journal_->begin(step + "-pivot"));
  ASSIGN_OR_RETURN(const Seconds pause,
                   while_stopped(context_, folder_, *journal_, [&]() -> Result<void> {
                     RETURN_IF_ERROR(machine.complete(target.node));
                     RETURN_IF_ERROR(wait_for_end(target.node));
                     qmp::Node moved = top.node;
                     moved.name = target.node;
                     return open_as_disk(moved);
                   }));
  meter_.count_pause(pause);
  return complete_opening();
}

// QEMU cannot open the file of a node by another name. So a second node of the same file becomes
// the overlay of the first one, without a backing file. Nothing writes to either meanwhile.
Result<void> QmpDisk::open_as_disk(const qmp::Node& node) {
  // The base of the overlay may be the same file, locked.
  RETURN_IF_ERROR(close_unused());
  RETURN_IF_ERROR(arrange_names(*context_.machine, folder_));
  const qmp::Opening how = opening(folder_.disk(), node);
  RETURN_IF_ERROR(context_.machine->open_image(how));
  RETURN_IF_ERROR(context_.machine->put_on_top(node.name, how.node));
  return context_.machine->change_backing(how);
}

// Completes what a run that was stopped may have left, and closes all but the disk.
Result<void> QmpDisk::complete_opening() {
  ASSIGN_OR_RETURN(QmpTop top, find_top(*context_.machine, folder_));
  if (!folder_.is(top.node.file, folder_.disk())) {
    ASSIGN_OR_RETURN(const Seconds pause, while_stopped(context_, folder_, *journal_,
                                                        [&] { return open_as_disk(top.node); }));
    meter_.count_pause(pause);
  } else if (top.device.files.size() > 1) {
    qmp::Opening how = opening(folder_.disk(), top.node);
    how.node = top.node.name;
    RETURN_IF_ERROR(context_.machine->change_backing(how));
  }
  RETURN_IF_ERROR(close_unused());
  ASSIGN_OR_RETURN(top, find_top(*context_.machine, folder_));
  if (top.node.name.starts_with(kPrefix)) report_.node = top.node.name;
  return {};
}

Result<bool> QmpDisk::finish() {
  ASSIGN_OR_RETURN(const QmpPlace at, place());
  if (at == QmpPlace::kOnDisk)
    return fail(Error::invalid(report_.disk + ": the guest does not write to an overlay"));
  if (at == QmpPlace::kOnOverlay) {
    RETURN_IF_ERROR(journal_->begin("copy"));
    RETURN_IF_ERROR(end_jobs());
    ASSIGN_OR_RETURN(const QmpTop top, find_top(*context_.machine, folder_));
    if (top.device.files.size() != 2 || !folder_.is(top.device.files[1], folder_.backup()))
      RETURN_IF_ERROR(change_base(top.node));
    RETURN_IF_ERROR(close_unused());
    ASSIGN_OR_RETURN(const bool worth, copy_base());
    if (!worth) return false;
    if (context_.cancel.requested()) return fail(Error::cancelled());
    meter_.begin_step("swap", "Moving the guest to the fresh image");
    decided_ = true;
    RETURN_IF_ERROR(move_guest(folder_.fresh(), "mirror", Patience::kUntilFull));
  } else {
    decided_ = true;
    if (context_.machine) RETURN_IF_ERROR(complete_opening());
  }
  if (context_.machine) RETURN_IF_ERROR(count_requests());
  RETURN_IF_ERROR(tidy_fresh());
  return true;
}

Result<void> QmpDisk::undo() {
  ASSIGN_OR_RETURN(const QmpPlace at, place());
  if (at == QmpPlace::kOnFresh)
    return fail(Error::invalid(report_.disk + ": the guest writes to the fresh image already"));
  RETURN_IF_ERROR(check_no_new_snapshots(folder_));
  if (!context_.machine) return undo_offline(at);
  meter_.begin_step("undo", "Bringing the guest back to its disk");
  RETURN_IF_ERROR(end_jobs());
  if (at == QmpPlace::kOnOverlay)
    RETURN_IF_ERROR(move_guest(folder_.backup(), "undo-mirror", Patience::kUntilReady));
  else
    RETURN_IF_ERROR(complete_opening());
  RETURN_IF_ERROR(count_requests());
  return tidy_original();
}

Result<void> QmpDisk::undo_offline(QmpPlace place) {
  meter_.begin_step("undo", "Writing the guest's changes back into its disk");
  if (place == QmpPlace::kOnOverlay) {
    RETURN_IF_ERROR(journal_->begin("undo-offline"));
    RETURN_IF_ERROR(commit_overlay(folder_, folder_.second_overlay(), folder_.backup(),
                                   context_.progress, context_.cancel));
    RETURN_IF_ERROR(folder_.link_over(folder_.backup(), folder_.disk()));
  }
  return tidy_original();
}

}  // namespace vc::live
