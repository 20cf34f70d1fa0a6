#include "live/qmp_disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <thread>
#include <utility>

#include "base/poll_interval.h"
#include "base/retry.h"
#include "live/disk_checks.h"
#include "live/frozen_base.h"
#include "live/overlay_commit.h"

namespace vc::live {

namespace {

// The names of our nodes and jobs.
constexpr std::string_view kPrefix = "virt-compact-";

// QEMU allows 31 characters, and a name of ours has "-file" behind it.
std::string new_node_name() {
  std::random_device random;
  return fmt::format("{}{:08x}", kPrefix, random() & 0xffffffff);
}

ino_t inode_of(const LiveFolder& folder, const std::string& name) {
  const auto status = folder.directory().status(name);
  return status ? status->st_ino : 0;
}

}  // namespace

QmpDisk::QmpDisk(const QmpContext& context, LiveFolder folder, Journal journal)
    : context_(context), folder_(std::move(folder)), journal_(std::move(journal)) {
  report_.domain = context_.machine ? context_.machine->name() : "QEMU";
  report_.disk = folder_.path_to(folder_.disk());
  if (journal_->record()->keep_backup) report_.backup = folder_.path_to(folder_.backup());
}

Result<std::unique_ptr<QmpDisk>> QmpDisk::check(const QmpContext& context, const std::string& path,
                                                const std::string& node) {
  qmp::Machine& machine = *context.machine;
  std::string found = path;
  if (!node.empty()) {
    ASSIGN_OR_RETURN(const auto nodes, machine.nodes());
    const auto it = std::find_if(nodes.begin(), nodes.end(),
                                 [&](const qmp::Node& each) { return each.name == node; });
    if (it == nodes.end())
      return fail(Error::invalid(fmt::format("{}: has no node '{}'", machine.name(), node)));
    if (it->driver != "qcow2")
      return fail(Error::unsupported(
          fmt::format("{}: node '{}': its driver is {}: only qcow2 is optimized: name the node of "
                      "the format",
                      machine.name(), node, it->driver)));
    found = it->file;
  }
  RETURN_IF_ERROR(check_not_stopped(found));
  const auto& suffix = context.options.optimize.backup_suffix;
  ASSIGN_OR_RETURN(LiveFolder folder, LiveFolder::open(found, Directory::name_of(found) +
                                                                  (suffix ? *suffix : ".bak")));
  std::unique_ptr<QmpDisk> disk(new QmpDisk(context, std::move(folder)));
  LiveDiskReport& report = disk->report_;
  report.domain = machine.name();
  report.disk = disk->folder_.path_to(disk->folder_.disk());
  if (suffix) report.backup = disk->folder_.path_to(disk->folder_.backup());
  if ((report.disk + disk->folder_.backup()).find('\n') != std::string::npos)
    return fail(Error::invalid(report.disk + ": has a newline in its name: rename it first"));
  RETURN_IF_ERROR(check_names(disk->folder_));
  ASSIGN_OR_RETURN(const QmpTop top, find_top(machine, disk->folder_));
  report.target = top.device.name;
  // A job puts a filter above the image.
  RETURN_IF_ERROR(disk->check_jobs());
  RETURN_IF_ERROR(disk->check_node(top));
  RETURN_IF_ERROR(check_image_file(
      context, disk->folder_, fmt::format("{}: disk {}", machine.name(), report.target), report));
  RETURN_IF_ERROR(check_reserve(context, disk->folder_));
  return disk;
}

Result<void> QmpDisk::check_node(const QmpTop& top) {
  const auto no = [&](const std::string& why) {
    return fail(
        Error::unsupported(fmt::format("{}: disk {}: {}", report_.domain, report_.target, why)));
  };
  if (top.node.driver != "qcow2")
    return no(fmt::format("its driver is {}: only qcow2 is optimized", top.node.driver));
  if (top.device.encrypted)
    return no("is encrypted: shut the guest down, and run virt-compact optimize on its disk");
  if (top.device.files.size() > 1)
    return no(
        fmt::format("has the backing file '{}': shut the guest down, and run virt-compact "
                    "optimize on its disk",
                    top.device.files[1]));
  ASSIGN_OR_RETURN(const auto nodes, context_.machine->nodes());
  for (const qmp::Node& node : nodes) {
    if (node.file != top.node.file) continue;
    if (node.has_bitmaps)
      return no(
          "has dirty bitmaps, and the next incremental backup would be wrong: delete them "
          "(block-dirty-bitmap-remove), and make a full backup afterwards");
    if (node.name != top.node.name && (node.driver == "qcow2" || node.driver == "raw"))
      return no(fmt::format("QEMU has its file open a second time, as node '{}'", node.name));
  }
  return {};
}

Result<void> QmpDisk::check_jobs() {
  ASSIGN_OR_RETURN(const auto jobs, context_.machine->jobs());
  if (!jobs.empty())
    return fail(Error::protocol(
        EBUSY, fmt::format("{}: the job '{}' ({}) is under way: wait until it has ended",
                           report_.domain, jobs.front().id, jobs.front().type)));
  ASSIGN_OR_RETURN(const bool migrates, context_.machine->migrates());
  if (!migrates) return {};
  return fail(
      Error::protocol(EBUSY, report_.domain + ": a migration is under way: wait for its end"));
}

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
  ASSIGN_OR_RETURN(auto journal,
                   Journal::create(folder_.directory(), folder_.journal(), std::move(record)));
  journal_.emplace(std::move(journal));
  RETURN_IF_ERROR(folder_.link_over(folder_.disk(), folder_.backup()));

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
    ASSIGN_OR_RETURN(const bool worth,
                     copy_frozen_base(context_, folder_, owner(), meter_, report_));
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

Result<void> QmpDisk::remove_files() {
  for (const std::string& name : {folder_.second_overlay(), folder_.fresh()}) {
    if (!folder_.are_same(name, folder_.disk())) {
      RETURN_IF_ERROR(folder_.remove_unused(name));
      continue;
    }
    // The second name of a file that stays.
    RETURN_IF_ERROR(folder_.directory().remove(name));
    RETURN_IF_ERROR(folder_.directory().flush());
  }
  return {};
}

Result<void> QmpDisk::tidy_fresh() {
  meter_.begin_step("clean up", "Removing the overlay");
  RETURN_IF_ERROR(journal_->begin("clean-up"));
  RETURN_IF_ERROR(remove_files());
  const Record& record = *journal_->record();
  if (!record.keep_backup && inode_of(folder_, folder_.backup()) == record.inode)
    RETURN_IF_ERROR(folder_.remove_unused(folder_.backup()));
  RETURN_IF_ERROR(journal_->remove(folder_.directory()));
  if (report_.after.file.length == 0)
    RETURN_IF_ERROR(optimize::measure(report_.disk, report_.after));
  report_.outcome = LiveDiskReport::Outcome::kOptimized;
  meter_.end_step();
  return {};
}

Result<void> QmpDisk::tidy_original() {
  RETURN_IF_ERROR(journal_->begin("undo-clean-up"));
  RETURN_IF_ERROR(remove_files());
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

Result<void> QmpDisk::undo() {
  ASSIGN_OR_RETURN(const QmpPlace at, place());
  if (at == QmpPlace::kOnFresh)
    return fail(Error::invalid(report_.disk + ": the guest writes to the fresh image already"));
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
