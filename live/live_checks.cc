// Which domains and disks of them are refused, and why.
#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "live/block_job.h"
#include "live/disk_checks.h"
#include "live/live_disk.h"

namespace vc::live {

namespace {

using libvirt::LiveDomain;

constexpr std::string_view kLockManager = "lock_manager";

Failure refuse(const Context& context, const std::string& target, const std::string& why) {
  return fail(
      Error::unsupported(fmt::format("{}: disk {}: {}", context.domain.name(), target, why)));
}

// Returns the name of the settings of the daemon at `uri`.
std::string settings_file(const std::string& uri) {
  if (uri.find("///session") == std::string::npos) return "/etc/libvirt/qemu.conf";
  const char* const config = std::getenv("XDG_CONFIG_HOME");
  const char* const home = std::getenv("HOME");
  return (config && *config != '\0' ? std::string(config)
                                    : std::string(home ? home : "") + "/.config") +
         "/libvirt/qemu.conf";
}

// virtlockd does not let a guest continue that was paused for a pivot.
Result<void> check_lock_manager(const LiveDomain& domain) {
  const std::string path = settings_file(domain.uri());
  std::ifstream settings(path);
  if (!sets_lock_manager(settings)) return {};
  return fail(Error::unsupported(
      path +
      ": sets lock_manager, with which the guest cannot continue after its disk was exchanged: "
      "shut the guest down, and run virt-compact optimize on its disk"));
}

}  // namespace

bool sets_lock_manager(std::istream& settings) {
  bool sets = false;
  for (std::string line; std::getline(settings, line);) {
    const size_t at = line.find_first_not_of(" \t");
    if (at == std::string::npos || line.compare(at, kLockManager.size(), kLockManager) != 0)
      continue;
    const size_t begin = line.find('"', at);
    const size_t end = begin == std::string::npos ? begin : line.find('"', begin + 1);
    // libvirt may accept what this parser does not.
    sets = end == std::string::npos || line.substr(begin + 1, end - begin - 1) != "nop";
  }
  return sets;
}

Result<void> check_domain(const LiveDomain& domain) {
  RETURN_IF_ERROR(domain.check_versions());
  RETURN_IF_ERROR(check_lock_manager(domain));
  ASSIGN_OR_RETURN(const bool persistent, domain.is_persistent());
  if (!persistent)
    return fail(
        Error::unsupported(domain.name() +
                           ": is transient: after a crash, nothing would know which files are its "
                           "disk: define it first (virsh define)"));
  ASSIGN_OR_RETURN(const auto activity, domain.activity());
  if (activity == LiveDomain::Activity::kOff)
    return fail(Error::invalid(
        domain.name() + ": does not run: run virt-compact optimize on its disks without --live"));
  if (activity != LiveDomain::Activity::kRuns)
    return fail(Error::invalid(domain.name() + ": is paused: resume it first (virsh resume)"));
  ASSIGN_OR_RETURN(const bool busy, domain.has_job());
  if (!busy) return {};
  return fail(Error::protocol(
      EBUSY, domain.name() + ": a migration, a save or a backup is under way: wait for its end"));
}

Result<std::unique_ptr<LiveDisk>> LiveDisk::check(const Context& context,
                                                  const std::string& target) {
  ASSIGN_OR_RETURN(const libvirt::DiskChain chain, context.domain.disk(target, false));
  if (chain.device != "disk")
    return refuse(context, target, fmt::format("is a {}: only disks are optimized", chain.device));
  if (chain.type != "file" || chain.top().empty())
    return refuse(context, target,
                  fmt::format("its type is {}: only images in files are optimized",
                              chain.type.empty() ? "not set" : chain.type));
  ASSIGN_OR_RETURN(LiveFolder folder, open_folder(context, chain.top()));
  std::unique_ptr<LiveDisk> disk(new LiveDisk(context, std::move(folder)));
  disk->report_.target = target;
  RETURN_IF_ERROR(check_names(disk->folder_));
  RETURN_IF_ERROR(disk->check_definition(chain));
  RETURN_IF_ERROR(check_image_file(context, disk->folder_,
                                   fmt::format("{}: disk {}", context.domain.name(), target),
                                   disk->report_));
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
  if (disk.encrypted)
    return no("is encrypted, and the overlay that takes the guest's writes would not be: " +
              std::string(kOffline));
  if (disk.divided) return no("is a part of a file, or has a data file: " + std::string(kOffline));
  const auto next = context_.domain.disk(target(), true);
  if (!next || next->top() != disk.top())
    return no(
        "is not in the definition of the domain's next start: add it there (virsh "
        "attach-disk --config) first");
  return {};
}

}  // namespace vc::live
