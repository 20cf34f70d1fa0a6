// Which disks of a QEMU without libvirt are refused, and why.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "live/disk_checks.h"
#include "live/qmp_disk.h"

namespace vc::live {

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
  ASSIGN_OR_RETURN(LiveFolder folder, open_folder(context, found));
  std::unique_ptr<QmpDisk> disk(new QmpDisk(context, std::move(folder)));
  LiveDiskReport& report = disk->report_;
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
  if (top.device.encrypted) return no("is encrypted: " + std::string(kOffline));
  if (top.device.files.size() > 1)
    return no(fmt::format("has the backing file '{}': {}", top.device.files[1], kOffline));
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

}  // namespace vc::live
