#include "tool/nightly/old_backup.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/retry.h"
#include "qcow2/format/header.h"
#include "qcow2/read/overlay_search.h"
#include "storage/directory.h"
#include "storage/file_storage.h"
#include "tool/live/live_run.h"
#include "tool/nightly/disk_checks.h"

namespace vc::tool {

namespace {

bool is_expired(const NightlySettings& settings, const LastResult& last, std::time_t now) {
  return settings.backup_days &&
         now >= last.backup_time + static_cast<int64_t>(*settings.backup_days) * 86400 - kHalfADay;
}

Result<void> check_disk_itself(const NightlyDisk& disk, const FileIdentity& old) {
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(disk.path));
  if (file->identity() == old)
    return fail(Error::invalid(disk.path + ": is the same file as its old disk"));
  if (disk.format == qcow2::Format::kRaw) return {};
  const auto header = qcow2::Header::read(*file, qcow2::Header::Purpose::kTell);
  return header ? Result<void>() : fail(header.error());
}

Result<void> check_free(const std::string& backup, const std::vector<libvirt::KnownDomain>& domains,
                        const std::vector<std::string>& others) {
  ASSIGN_OR_RETURN(const auto skip, check_users(backup, domains, nullptr));
  if (skip) return fail(Error::protocol(EBUSY, fmt::format("{}: {}", backup, skip->text)));
  if (const auto overlay = qcow2::find_overlay(backup, others))
    return fail(
        Error::protocol(EBUSY, fmt::format("{}: is the backing file of {}", backup, *overlay)));
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(backup));
  return file->lock(ImageClaim::writing(), "it is kept");
}

}  // namespace

Result<std::string> remove_old_backup(const NightlyDisk& disk, const LastResult* last,
                                      const std::vector<libvirt::KnownDomain>& domains,
                                      const std::vector<std::string>& others, std::time_t now,
                                      bool dry_run) {
  if (!last || last->backup.empty() || !is_expired(*disk.settings, *last, now))
    return std::string();
  ASSIGN_OR_RETURN(std::string backup, backup_of(disk.path));
  if (backup != last->backup || is_stopped_live_run(disk.path)) return std::string();
  ASSIGN_OR_RETURN(const auto folder, Directory::open(Directory::parent_of(backup)));
  const std::string name = Directory::name_of(backup);
  const auto status = folder.status(name);
  // Somebody has removed, replaced or changed it.
  if (!status || !S_ISREG(status->st_mode) || FileState::of(*status) != last->backup_file)
    return std::string();
  RETURN_IF_ERROR(check_disk_itself(disk, FileIdentity::of(*status)));
  RETURN_IF_ERROR(check_free(backup, domains, others));
  if (dry_run) return backup;
  if (!folder.holds(name, FileIdentity::of(*status))) return std::string();
  RETURN_IF_ERROR(folder.remove(name));
  RETURN_IF_ERROR(folder.flush());
  return backup;
}

}  // namespace vc::tool
