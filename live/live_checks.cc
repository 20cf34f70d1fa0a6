// Which disks of domains are refused, and why.
#include <fmt/format.h>

#include "live/block_job.h"
#include "live/disk_checks.h"
#include "live/live_disk.h"

namespace vc::live {

namespace {

constexpr const char* kOffline = "shut the guest down, and run virt-compact optimize on its disk";

Failure refuse(const Context& context, const std::string& target, const std::string& why) {
  return fail(
      Error::unsupported(fmt::format("{}: disk {}: {}", context.domain.name(), target, why)));
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
  RETURN_IF_ERROR(check_names(disk->folder_));
  RETURN_IF_ERROR(disk->check_definition(chain));
  RETURN_IF_ERROR(check_image_file(context, disk->folder_,
                                   fmt::format("{}: disk {}", context.domain.name(), target),
                                   disk->report_));
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

Result<void> LiveDisk::check_checkpoints() const {
  ASSIGN_OR_RETURN(const int checkpoints, context_.domain.checkpoints());
  if (checkpoints == 0) return {};
  return refuse(context_, target(),
                fmt::format("the domain has {} checkpoint{}, and the next incremental backup would "
                            "be wrong: delete them (virsh checkpoint-delete), and make a full "
                            "backup afterwards",
                            checkpoints, checkpoints == 1 ? "" : "s"));
}

}  // namespace vc::live
