#include "appliance/guest_disk.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "base/retry.h"
#include "copy/source/open_source.h"

namespace vc::appliance {

namespace {

constexpr const char* kShutDown = "shut it down first";

// Takes a writer's lock and releases it at once: the server will take its own.
Result<void> check_unused(const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_writable(path));
  return file->lock(ImageClaim::writing(), kShutDown);
}

}  // namespace

std::optional<FileSize> file_size(const GuestDisk& disk) {
  if (!disk.local) return std::nullopt;
  FileSize sum;
  for (const std::string* path : {&disk.given.name, &disk.data_file}) {
    if (path->empty()) continue;
    struct stat status {};
    if (retry(::stat, path->c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
    sum += FileSize::of(status);
  }
  return sum;
}

Result<GuestDisk> inspect_disk(const GuestDiskName& name, bool writing) {
  GuestDisk disk;
  disk.given = name;
  ASSIGN_OR_RETURN(const auto target, copy::nbd_target(name.name, name.command));
  if (target) {
    if (name.format == qcow2::Format::kQcow2)
      return fail(
          Error::unsupported(target->name() +
                             ": a QCOW2 file behind NBD is not decoded: give the URI of a server "
                             "that decodes it, such as nbdkit with the qcow2 plugin"));
    disk.name = target->name();
    return disk;
  }
  disk.name = name.shown.empty() ? name.name : name.shown;
  disk.local = true;
  qcow2::OpenOptions options;
  options.format = name.format;
  options.trust.names = name.names;
  options.trust.keys = name.keys;
  {
    ASSIGN_OR_RETURN(const auto chain, qcow2::Chain::open(name.name, options));
    disk.format = chain.format();
    if (disk.format == qcow2::Format::kLuks)
      return fail(Error::unsupported(
          disk.name +
          ": is encrypted with LUKS: a raw disk of this kind can only be read (-f raw takes "
          "it as a disk with an encrypted volume of the guest)"));
    for (const auto& it : chain.encryptions()) disk.encrypted = disk.encrypted || it;
    if (const auto& image = chain.image()) {
      const qcow2::Header& header = image->header();
      disk.backing = header.backing_file;
      disk.snapshots = image->snapshots().size();
      disk.granularity = image->geometry().subcluster_size();
      if (header.has_data_file()) disk.data_file = image->data_storage().name();
    }
  }
  if (disk.format == qcow2::Format::kRaw) {
    if (writing) {
      ASSIGN_OR_RETURN(disk.lock, FileStorage::open_writable(name.name));
    } else {
      ASSIGN_OR_RETURN(disk.lock, FileStorage::open_readonly(name.name));
    }
    const auto claim = writing ? ImageClaim::writing() : ImageClaim::reading();
    RETURN_IF_ERROR(disk.lock->lock(claim, kShutDown));
    return disk;
  }
  if (!writing) return disk;
  RETURN_IF_ERROR(check_unused(name.name));
  if (!disk.data_file.empty()) RETURN_IF_ERROR(check_unused(disk.data_file));
  return disk;
}

void warn_of_kept_data(const GuestDisk& disk, Observer& observer) {
  if (disk.snapshots > 0)
    observer.warning(fmt::format(
        "{}: {} keep data that trimming removes from the disk: deleting snapshots frees this space "
        "(virt-compact snapshot -d)",
        disk.name,
        disk.snapshots == 1 ? "an internal snapshot may"
                            : fmt::format("{} internal snapshots may", disk.snapshots)));
  if (!disk.backing.empty())
    observer.warning(fmt::format(
        "{}: space in its backing file {} is not freed: only space of the overlay itself is freed",
        disk.name, disk.backing));
}

}  // namespace vc::appliance
