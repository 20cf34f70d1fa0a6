#include "live/disk_checks.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "live/attributes.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/header.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

constexpr const char* kOffline = "shut the guest down, and run virt-compact optimize on its disk";

Failure was_stopped(const LiveFolder& folder) {
  const std::string disk = folder.path_to(folder.disk());
  return fail(Error::invalid(fmt::format(
      "{}: an earlier run was stopped: complete it with virt-compact optimize --resume {}, or "
      "undo it with virt-compact rollback {}",
      folder.path_to(folder.journal()), disk, disk)));
}

}  // namespace

Result<void> check_not_stopped(const std::string& top) {
  const std::string name = Directory::name_of(top);
  for (const std::string_view ending : {".live1", ".live"}) {
    if (!name.starts_with('.') || !name.ends_with(ending)) continue;
    const std::string disk = name.substr(1, name.size() - 1 - ending.size());
    const auto folder = LiveFolder::open(Directory::parent_of(top) + "/" + disk, "");
    if (folder && folder->has(folder->journal())) return was_stopped(*folder);
  }
  return {};
}

Result<void> check_names(const LiveFolder& folder) {
  if (folder.has(folder.journal())) return was_stopped(folder);
  if (folder.has(folder.backup()))
    return fail(Error::invalid(fmt::format(
        "{}: exists already: if it is the backup of an earlier run, and the guest works, remove "
        "it, or choose another suffix (--backup)",
        folder.path_to(folder.backup()))));
  for (const std::string& name : {folder.overlay(), folder.second_overlay(), folder.fresh()})
    if (folder.has(name))
      return fail(Error::invalid(folder.path_to(name) +
                                 ": exists, and a run needs this name: move it to another place"));
  const auto status = folder.directory().status(folder.disk());
  if (status && status->st_nlink > 1)
    return fail(Error::invalid(fmt::format(
        "{}: has {} more names (hard links), which would keep the old disk: remove them first",
        folder.path_to(folder.disk()), status->st_nlink - 1)));
  return {};
}

Result<void> check_image_file(const RunContext& context, const LiveFolder& folder,
                              const std::string& what, LiveDiskReport& report) {
  const auto no = [&](const std::string& why) {
    return fail(Error::unsupported(what + ": " + why));
  };
  ASSIGN_OR_RETURN(const auto file,
                   FileStorage::open_readonly_in(folder.directory(), folder.disk()));
  if (file->lock(ImageClaim::replacing(), "its guest runs"))
    return no(
        fmt::format("no process of this machine has {} open for writing: run the command on "
                    "the host of the guest, and on storage with locks",
                    report.disk));
  ASSIGN_OR_RETURN(const auto header, qcow2::Header::read(*file, qcow2::Header::Purpose::kTell));
  if (header.crypt_method != qcow2::CryptMethod::kNone)
    return no("is encrypted: " + std::string(kOffline));
  if (header.has_data_file()) return no("has an external data file: " + std::string(kOffline));
  if (!header.backing_file.empty())
    return no(fmt::format("has the backing file '{}': {}", header.backing_file, kOffline));
  if (header.snapshot_count > 0 && context.options.optimize.copy.snapshots)
    return no(
        fmt::format("has {} internal snapshot{}, which stay in the backup only: allow this "
                    "with --drop-snapshots",
                    header.snapshot_count, header.snapshot_count == 1 ? "" : "s"));
  const auto bitmaps = qcow2::read_bitmap_directory(*file, header);
  if (!bitmaps || !bitmaps->bitmaps.empty())
    return no(
        "has persistent bitmaps, and the next incremental backup would be wrong: delete the "
        "checkpoints (virsh checkpoint-delete), and make a full backup afterwards");
  return optimize::measure(report.disk, report.before);
}

Result<Record> new_record(const RunContext& context, const LiveFolder& folder) {
  ASSIGN_OR_RETURN(const auto file,
                   FileStorage::open_readonly_in(folder.directory(), folder.disk()));
  ASSIGN_OR_RETURN(const Owner owner,
                   remembered_owner(file->descriptor(), folder.path_to(folder.disk())));
  Record record;
  record.backup = folder.backup();
  record.keep_backup = context.options.optimize.backup_suffix.has_value();
  record.inode = file->identity().inode;
  record.user = owner.user;
  record.group = owner.group;
  record.step = "begin";
  return record;
}

}  // namespace vc::live
