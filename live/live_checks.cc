// Which disks are refused, and why.
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include "live/attributes.h"
#include "live/block_job.h"
#include "live/live_disk.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/format/header.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

constexpr const char* kOffline = "shut the guest down, and run virt-compact optimize on its disk";

Failure refuse(const Context& context, const std::string& target, const std::string& why) {
  return fail(
      Error::unsupported(fmt::format("{}: disk {}: {}", context.domain.name(), target, why)));
}

Failure was_stopped(const LiveFolder& folder) {
  const std::string disk = folder.path_to(folder.disk());
  return fail(Error::invalid(fmt::format(
      "{}: an earlier run was stopped: complete it with virt-compact optimize --resume {}, or "
      "undo it with virt-compact rollback {}",
      folder.path_to(folder.journal()), disk, disk)));
}

// Returns an error if the guest writes to an overlay of a run that was stopped, or is under way.
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

}  // namespace

Result<std::unique_ptr<LiveDisk>> LiveDisk::check(const Context& context,
                                                  const std::string& target) {
  ASSIGN_OR_RETURN(const libvirt::DiskChain chain, context.domain.disk(target, false));
  if (chain.device != "disk")
    return refuse(context, target, fmt::format("is a {}: only disks are optimized", chain.device));
  if (chain.type != "file" || chain.top().empty())
    return refuse(context, target,
                  fmt::format("its type is {}: only images in files are optimized",
                              chain.type.empty() ? "not set" : chain.type));
  RETURN_IF_ERROR(check_not_stopped(chain.top()));
  const auto& suffix = context.options.optimize.backup_suffix;
  ASSIGN_OR_RETURN(
      LiveFolder folder,
      LiveFolder::open(chain.top(), Directory::name_of(chain.top()) + (suffix ? *suffix : ".bak")));
  std::unique_ptr<LiveDisk> disk(new LiveDisk(context, std::move(folder)));
  disk->report_.domain = context.domain.name();
  disk->report_.target = target;
  disk->report_.disk = chain.top();
  if (suffix) disk->report_.backup = disk->folder_.path_to(disk->folder_.backup());
  RETURN_IF_ERROR(disk->check_names());
  RETURN_IF_ERROR(disk->check_definition(chain));
  RETURN_IF_ERROR(disk->check_image_file());
  RETURN_IF_ERROR(disk->check_checkpoints());
  RETURN_IF_ERROR(check_reserve(context, disk->folder_));
  return disk;
}

Result<void> LiveDisk::check_definition(const libvirt::DiskChain& disk) {
  const auto no = [&](const std::string& why) { return refuse(context_, target(), why); };
  if (disk.mirror)
    return no(fmt::format("has a block job ({}): wait until it has ended", disk.mirror->job));
  if (disk.files.front().format != "qcow2")
    return no(
        fmt::format("its format is {}: only qcow2 is optimized; for a raw disk, "
                    "discard='unmap' and a trim in the guest give the space back",
                    disk.files.front().format));
  if (disk.read_only) return no("is read-only, so it does not grow: " + std::string(kOffline));
  if (disk.shareable) return no("is shared with other domains, which would keep the old file");
  if (disk.transient) return no("is transient: its changes are lost when the guest stops");
  if (disk.encrypted) return no("is encrypted: " + std::string(kOffline));
  if (disk.divided) return no("is a part of a file, or has a data file: " + std::string(kOffline));
  if (disk.files.size() > 1)
    return no(fmt::format("has the backing file '{}': {}", disk.files[1].path, kOffline));
  const auto next = context_.domain.disk(target(), true);
  if (!next || next->top() != disk.top())
    return no(
        "is not in the definition of the domain's next start: add it there (virsh "
        "attach-disk --config) first");
  return {};
}

Result<void> LiveDisk::check_names() const {
  if (folder_.has(folder_.journal())) return was_stopped(folder_);
  if (folder_.has(folder_.backup()))
    return fail(Error::invalid(fmt::format(
        "{}: exists already: if it is the backup of an earlier run, and the guest works, remove "
        "it, or choose another suffix (--backup)",
        folder_.path_to(folder_.backup()))));
  for (const std::string& name : {folder_.overlay(), folder_.second_overlay(), folder_.fresh()})
    if (folder_.has(name))
      return fail(Error::invalid(folder_.path_to(name) +
                                 ": exists, and a run needs this name: move it to another place"));
  const auto status = folder_.directory().status(folder_.disk());
  if (status && status->st_nlink > 1)
    return fail(Error::invalid(fmt::format(
        "{}: has {} more names (hard links), which would keep the old disk: remove them first",
        report_.disk, status->st_nlink - 1)));
  return {};
}

// The guest writes to the image, but not to its header, snapshots and bitmaps.
Result<void> LiveDisk::check_image_file() {
  const auto no = [&](const std::string& why) { return refuse(context_, target(), why); };
  ASSIGN_OR_RETURN(const auto file,
                   FileStorage::open_readonly_in(folder_.directory(), folder_.disk()));
  if (file->lock(ImageClaim::replacing(), "its guest runs"))
    return no(
        fmt::format("no process of this machine has {} open for writing: run the command on "
                    "the host of the guest, and on storage with locks",
                    report_.disk));
  ASSIGN_OR_RETURN(const auto header, qcow2::Header::read(*file, qcow2::Header::Purpose::kTell));
  if (header.crypt_method != qcow2::CryptMethod::kNone)
    return no("is encrypted: " + std::string(kOffline));
  if (header.has_data_file()) return no("has an external data file: " + std::string(kOffline));
  if (!header.backing_file.empty())
    return no(fmt::format("has the backing file '{}': {}", header.backing_file, kOffline));
  if (header.snapshot_count > 0 && !context_.options.optimize.drop_snapshots)
    return no(
        fmt::format("has {} internal snapshot{}, which stay in the backup only: allow this "
                    "with --drop-snapshots",
                    header.snapshot_count, header.snapshot_count == 1 ? "" : "s"));
  const auto bitmaps = qcow2::read_bitmap_directory(*file, header);
  if (!bitmaps || !bitmaps->bitmaps.empty())
    return no(
        "has persistent bitmaps, and the next incremental backup would be wrong: delete the "
        "checkpoints (virsh checkpoint-delete), and make a full backup afterwards");
  return optimize::measure(report_.disk, report_.before);
}

Result<void> LiveDisk::check_checkpoints() const {
  ASSIGN_OR_RETURN(const int checkpoints, context_.domain.checkpoints());
  if (checkpoints == 0) return {};
  return refuse(context_, target(),
                fmt::format("the domain has {} checkpoint{}, and the next incremental backup would "
                            "be wrong: delete them (virsh checkpoint-delete), and make a full "
                            "backup afterwards",
                            checkpoints, checkpoints == 1 ? "" : "s"));
}

Result<Record> LiveDisk::new_record() const {
  ASSIGN_OR_RETURN(const auto file,
                   FileStorage::open_readonly_in(folder_.directory(), folder_.disk()));
  ASSIGN_OR_RETURN(const Owner owner, remembered_owner(file->descriptor(), report_.disk));
  Record record;
  record.uuid = context_.domain.uuid();
  record.target = target();
  record.backup = folder_.backup();
  record.keep_backup = context_.options.optimize.backup_suffix.has_value();
  record.inode = file->identity().inode;
  record.user = owner.user;
  record.group = owner.group;
  record.step = "begin";
  return record;
}

}  // namespace vc::live
