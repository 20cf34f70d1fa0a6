#include "live/qmp_optimize.h"

#include <memory>
#include <utility>

#include "live/end_of_run.h"
#include "live/qmp_disk.h"

namespace vc::live {

namespace {

using Activity = qmp::Machine::Activity;

Result<std::unique_ptr<Guardian>> start_guardian(const std::string& socket) {
  return Guardian::start([&socket](const std::string& task) { resume_qemu(socket, task); });
}

Failure is_paused(const qmp::Machine& machine) {
  return fail(Error::invalid(machine.name() +
                             ": the guest is paused: let it continue first (cont); if its storage "
                             "was full, free space before"));
}

// Gives the guest its overlay, and undoes that after an error.
Result<void> begin(const QmpContext& context, QmpDisk& disk) {
  auto begun = disk.begin();
  if (begun || !disk.has_journal()) return begun;
  const auto undone = disk.undo();
  if (undone) return begun;
  return fail(Error::protocol(begun.error().errnum(), stopped_text(context, disk.report().disk,
                                                                   begun.error().message() + "; " +
                                                                       undone.error().message())));
}

// Returns an error if the guest is paused, unless the run that was stopped has paused it.
Result<void> wake(qmp::Machine& machine, const StoppedFiles& files) {
  ASSIGN_OR_RETURN(const Activity activity, machine.activity());
  if (activity == Activity::kRuns) return {};
  const auto& record = files.journal.record();
  if (activity == Activity::kPausedOtherwise || !record || !record->paused)
    return is_paused(machine);
  RETURN_IF_ERROR(arrange_names(machine, files.folder));
  return machine.resume();
}

}  // namespace

Result<std::vector<LiveDiskReport>> optimize_qmp(const LiveOptions& options,
                                                 appliance::Observer& observer, Progress& progress,
                                                 const Cancel& cancel) {
  ASSIGN_OR_RETURN(const auto guardian, start_guardian(options.qmp_socket));
  std::string path;
  if (!options.disks.empty()) {
    ASSIGN_OR_RETURN(path, real_path(options.disks.front()));
  }
  ASSIGN_OR_RETURN(const auto machine, qmp::Machine::open(options.qmp_socket));
  if (!machine)
    return fail(Error::invalid(options.qmp_socket +
                               ": no QEMU listens on this socket: if the guest is shut down, run "
                               "virt-compact optimize without --live"));
  const QmpContext context{{*guardian, options, observer, progress, cancel}, machine.get()};
  RETURN_IF_ERROR(machine->check_version());
  ASSIGN_OR_RETURN(const Activity activity, machine->activity());
  if (activity != Activity::kRuns) return is_paused(*machine);
  ASSIGN_OR_RETURN(const auto disk, QmpDisk::check(context, path, options.node));
  if (!options.optimize.dry_run) {
    if (cancel.requested()) return fail(Error::cancelled());
    RETURN_IF_ERROR(begin(context, *disk));
    finish_or_undo(context, *disk);
  }
  std::vector<LiveDiskReport> reports;
  reports.push_back(std::move(disk->report()));
  return reports;
}

Result<LiveDiskReport> complete_qmp(const std::string& path, const LiveOptions& options,
                                    bool forward, appliance::Observer& observer, Progress& progress,
                                    const Cancel& cancel) {
  ASSIGN_OR_RETURN(const auto guardian, start_guardian(options.qmp_socket));
  ASSIGN_OR_RETURN(StoppedFiles files, open_stopped(path));
  if (const auto& record = files.journal.record(); record && !record->qmp)
    return fail(Error::invalid(path + ": the run was started without --qmp: omit it"));
  ASSIGN_OR_RETURN(const auto machine, qmp::Machine::open(options.qmp_socket));
  if (machine) RETURN_IF_ERROR(wake(*machine, files));
  const QmpContext context{{*guardian, options, observer, progress, cancel}, machine.get()};
  QmpDisk disk(context, std::move(files.folder), std::move(files.journal));
  ASSIGN_OR_RETURN(const QmpPlace place, disk.place());
  if (place == QmpPlace::kOnFresh || (machine && forward && place == QmpPlace::kOnOverlay)) {
    RETURN_IF_ERROR(
        optimize::measure(disk.folder().path_to(disk.folder().backup()), disk.report().before));
    finish_or_undo(context, disk);
  } else {
    RETURN_IF_ERROR(disk.undo());
  }
  return std::move(disk.report());
}

}  // namespace vc::live
