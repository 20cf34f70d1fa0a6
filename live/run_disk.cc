#include "live/run_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/retry.h"
#include "live/disk_checks.h"
#include "live/frozen_base.h"

namespace vc::live {

ino_t inode_of(const LiveFolder& folder, const std::string& name) {
  const auto status = folder.directory().status(name);
  return status ? status->st_ino : 0;
}

RunDisk::RunDisk(const RunContext& context, LiveFolder folder, const std::string& domain)
    : folder_(std::move(folder)), meter_(context.observer, report_), run_(context) {
  report_.domain = domain;
  report_.disk = folder_.path_to(folder_.disk());
  if (context.options.optimize.backup_suffix) report_.backup = folder_.path_to(folder_.backup());
}

RunDisk::RunDisk(const RunContext& context, LiveFolder folder, Journal journal,
                 const std::string& domain)
    : RunDisk(context, std::move(folder), domain) {
  journal_.emplace(std::move(journal));
  report_.target = record().target;
  report_.backup = record().keep_backup ? folder_.path_to(folder_.backup()) : "";
}

Result<LiveFolder> RunDisk::open_folder(const RunContext& context, const std::string& path) {
  RETURN_IF_ERROR(check_not_stopped(path));
  const auto& suffix = context.options.optimize.backup_suffix;
  return LiveFolder::open(path, Directory::name_of(path) + (suffix ? *suffix : ".bak"));
}

Result<void> RunDisk::begin_journal(Record record) {
  ASSIGN_OR_RETURN(auto journal,
                   Journal::create(folder_.directory(), folder_.journal(), std::move(record)));
  journal_.emplace(std::move(journal));
  return folder_.link_over(folder_.disk(), folder_.backup());
}

Result<bool> RunDisk::copy_base() {
  return copy_frozen_base(run_, folder_, owner(), meter_, report_);
}

Result<void> RunDisk::remove_files() {
  for (const std::string& name : {folder_.overlay(), folder_.second_overlay(), folder_.fresh()}) {
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

Result<void> RunDisk::end_journal() {
  RETURN_IF_ERROR(journal_->remove(folder_.directory()));
  meter_.end_step();
  return {};
}

Result<void> RunDisk::tidy_fresh() {
  meter_.begin_step("clean up", record().qmp ? "Removing the overlay" : "Removing the overlays");
  RETURN_IF_ERROR(journal_->begin("clean-up"));
  RETURN_IF_ERROR(remove_files());
  if (inode_of(folder_, folder_.backup()) == record().inode) {
    if (!record().qmp) {
      // libvirt leaves the owner of a backing file.
      ASSIGN_OR_RETURN(const Descriptor old,
                       folder_.directory().open_file(folder_.backup(), O_RDONLY));
      if (retry(::fchown, old.get(), record().user, record().group) != 0 ||
          retry(::fsync, old.get()) != 0)
        return fail(Error::system(errno, folder_.path_to(folder_.backup()) + ": set its owner"));
    }
    if (!record().keep_backup) RETURN_IF_ERROR(folder_.remove_unused(folder_.backup()));
  }
  RETURN_IF_ERROR(end_journal());
  if (report_.after.file.length == 0)
    RETURN_IF_ERROR(optimize::measure(report_.disk, report_.after));
  report_.outcome = LiveDiskReport::Outcome::kOptimized;
  return {};
}

Result<void> RunDisk::tidy_original() {
  RETURN_IF_ERROR(journal_->begin("undo-clean-up"));
  RETURN_IF_ERROR(remove_files());
  if (folder_.are_same(folder_.disk(), folder_.backup())) {
    RETURN_IF_ERROR(folder_.directory().remove(folder_.backup()));
    RETURN_IF_ERROR(folder_.directory().flush());
  }
  RETURN_IF_ERROR(end_journal());
  report_.outcome = LiveDiskReport::Outcome::kUndone;
  report_.backup.clear();
  return {};
}

}  // namespace vc::live
