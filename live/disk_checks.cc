#include "live/disk_checks.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "live/attributes.h"
#include "live/end_of_run.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/header.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

bool is_qmp(const RunContext& context) {
  return !context.options.qmp_socket.empty();
}

// These return why the disk is refused; empty: it is not.
std::string obstacle_of_chain(const RunContext& context, const qcow2::Header& header) {
  if (header.backing_file.empty()) return "";
  if (is_qmp(context))
    return fmt::format("has the backing file '{}': {}", header.backing_file, kOffline);
  if (header.backing_format().value_or("").empty())
    return fmt::format(
        "names no format of its backing file '{}', which libvirt needs: shut the guest down, and "
        "run qemu-img rebase -u -b {} -F FORMAT",
        header.backing_file, header.backing_file);
  return "";
}

std::string obstacle_of_bitmaps(const RunContext& context) {
  if (is_qmp(context))
    return "has persistent bitmaps, which --qmp cannot keep: delete them (qemu-img bitmap "
           "--remove), and make a full backup afterwards, or " +
           std::string(kOffline);
  if (context.options.optimize.drop_bitmaps)
    return "has persistent bitmaps, and libvirt would make new ones without the older changes: "
           "delete the checkpoints (virsh checkpoint-delete) instead of --drop-bitmaps";
  if (context.options.optimize.copy.image.version.value_or(3) < 3)
    return "has persistent bitmaps, which version 2 (compat=0.10) does not have: omit compat";
  return "";
}

}  // namespace

Result<void> check_not_stopped(const std::string& top) {
  const std::string name = Directory::name_of(top);
  for (const std::string_view ending : {".live1", ".live"}) {
    if (!name.starts_with('.') || !name.ends_with(ending)) continue;
    const std::string disk = name.substr(1, name.size() - 1 - ending.size());
    RETURN_IF_ERROR(check_no_run(Directory::parent_of(top) + "/" + disk));
  }
  return {};
}

Result<void> check_names(const LiveFolder& folder) {
  RETURN_IF_ERROR(check_no_run(folder));
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
    return no("is encrypted, and the overlay that takes the guest's writes would not be: " +
              std::string(kOffline));
  if (header.has_data_file()) return no("has an external data file: " + std::string(kOffline));
  if (const std::string why = obstacle_of_chain(context, header); !why.empty()) return no(why);
  const auto bitmaps = qcow2::read_bitmap_directory(*file, header);
  if (!bitmaps || !bitmaps->bitmaps.empty())
    if (const std::string why = obstacle_of_bitmaps(context); !why.empty()) return no(why);
  return optimize::measure(report.disk, report.before);
}

Result<void> check_no_new_snapshots(const LiveFolder& folder) {
  for (const std::string& name : {folder.overlay(), folder.second_overlay()}) {
    if (!folder.has(name)) continue;
    ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly_in(folder.directory(), name));
    ASSIGN_OR_RETURN(const auto header, qcow2::Header::read(*file, qcow2::Header::Purpose::kTell));
    if (header.snapshot_count > 0)
      return fail(Error::invalid(fmt::format(
          "{}: has {} internal snapshot{} that {} made during the run, and would be lost: delete "
          "{} first (virsh snapshot-delete)",
          folder.path_to(name), header.snapshot_count, header.snapshot_count == 1 ? "" : "s",
          header.snapshot_count == 1 ? "was" : "were",
          header.snapshot_count == 1 ? "it" : "them")));
  }
  return {};
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
