#include "appliance/trim_timer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>

#include "appliance/appliance.h"
#include "appliance/disk_server.h"

namespace vc::appliance {

namespace {

using State = TimerReport::State;

constexpr const char* kUnit = "fstrim.timer";
constexpr const char* kWants = "/etc/systemd/system/timers.target.wants";

// Folders with the unit, by distribution.
constexpr std::array<const char*, 2> kFolders{"/usr/lib/systemd/system", "/lib/systemd/system"};

// Converts "key, value, key, value …".
std::map<std::string, std::string> pairs_of(const std::vector<std::string>& words) {
  std::map<std::string, std::string> pairs;
  for (size_t i = 0; i + 1 < words.size(); i += 2) pairs[words[i]] = words[i + 1];
  return pairs;
}

class Timer {
 public:
  Timer(const Appliance& appliance, bool apply) : appliance_(appliance), apply_(apply) {}

  Result<std::vector<TimerReport>> run() {
    RETURN_IF_ERROR(check_awake());
    ASSIGN_OR_RETURN(const auto roots,
                     appliance_.list(guestfs_inspect_os(guest()), "look for operating systems"));
    if (roots.empty()) return fail(Error::invalid("there is no operating system on these disks"));
    std::vector<TimerReport> reports;
    for (const std::string& root : roots) {
      TimerReport report;
      report.root = root;
      // Errors are ignored: some systems have no name.
      const auto product =
          appliance_.text(guestfs_inspect_get_product_name(guest(), root.c_str()), root);
      if (product && *product != "unknown") report.product = *product;
      ASSIGN_OR_RETURN(const std::string type,
                       appliance_.text(guestfs_inspect_get_type(guest(), root.c_str()), root));
      if (type == "windows") report.state = State::kWindows;
      if (type == "linux") {
        RETURN_IF_ERROR(mount(root));
        ASSIGN_OR_RETURN(report.state, enable());
        RETURN_IF_ERROR(appliance_.check(guestfs_umount_all(guest()), "unmount"));
      }
      reports.push_back(std::move(report));
    }
    return reports;
  }

 private:
  guestfs_h* guest() const { return appliance_.handle(); }

  // A suspended Linux guest keeps filesystem metadata in memory. A change to its disks would
  // destroy its filesystems.
  Result<void> check_awake() const {
    ASSIGN_OR_RETURN(const auto words,
                     appliance_.list(guestfs_list_filesystems(guest()), "list filesystems"));
    for (const auto& [device, type] : pairs_of(words))
      if (type == "swsuspend")
        return fail(Error::invalid(
            device + ": a Linux guest is suspended to this device: boot it and shut it down"));
    return {};
  }

  Result<void> mount(const std::string& root) const {
    ASSIGN_OR_RETURN(const auto words,
                     appliance_.list(guestfs_inspect_get_mountpoints(guest(), root.c_str()), root));
    // The map is sorted by path: "/" comes before "/usr".
    for (const auto& [path, device] : pairs_of(words)) {
      const auto mounted =
          appliance_.check(guestfs_mount(guest(), device.c_str(), path.c_str()), "mount " + device);
      // Other filesystems than the root may be missing, as in the guest itself ("nofail").
      if (!mounted && path == "/") return mounted;
    }
    return {};
  }

  Result<bool> is_file(const std::string& path) const {
    const int found =
        guestfs_is_file_opts(guest(), path.c_str(), GUESTFS_IS_FILE_OPTS_FOLLOWSYMLINKS, 1, -1);
    RETURN_IF_ERROR(appliance_.check(found, path));
    return found == 1;
  }
  Result<bool> is_link(const std::string& path) const {
    const int found = guestfs_is_symlink(guest(), path.c_str());
    RETURN_IF_ERROR(appliance_.check(found, path));
    return found == 1;
  }

  Result<State> enable() const {
    const std::string own = fmt::format("/etc/systemd/system/{}", kUnit);
    ASSIGN_OR_RETURN(const bool is_own_link, is_link(own));
    if (is_own_link) {
      ASSIGN_OR_RETURN(const std::string target,
                       appliance_.text(guestfs_readlink(guest(), own.c_str()), own));
      if (target == "/dev/null") return State::kMasked;
    }
    std::string unit;
    ASSIGN_OR_RETURN(const bool has_own, is_file(own));
    if (has_own) unit = own;
    for (const char* folder : kFolders) {
      if (!unit.empty()) break;
      const std::string path = fmt::format("{}/{}", folder, kUnit);
      ASSIGN_OR_RETURN(const bool there, is_file(path));
      if (there) unit = path;
    }
    if (unit.empty()) return State::kMissing;
    const std::string link = fmt::format("{}/{}", kWants, kUnit);
    ASSIGN_OR_RETURN(const bool linked, is_link(link));
    if (linked) return State::kWasEnabled;
    if (!apply_) return State::kEnabled;
    RETURN_IF_ERROR(appliance_.check(guestfs_mkdir_p(guest(), kWants), kWants));
    RETURN_IF_ERROR(appliance_.check(guestfs_ln_s(guest(), unit.c_str(), link.c_str()), link));
    RETURN_IF_ERROR(appliance_.check(guestfs_sync(guest()), "sync"));
    return State::kEnabled;
  }

  const Appliance& appliance_;
  const bool apply_;
};

Result<std::vector<TimerReport>> run_timer(const std::vector<Appliance::Drive>& drives,
                                           const std::vector<std::unique_ptr<DiskServer>>& servers,
                                           bool apply, Observer& observer, const Cancel& cancel) {
  observer.step("Booting the appliance");
  ASSIGN_OR_RETURN(const auto appliance, Appliance::launch(drives, observer, cancel));
  observer.step("Looking for operating systems");
  ASSIGN_OR_RETURN(auto reports, Timer(*appliance, apply).run());
  RETURN_IF_ERROR(appliance->shut_down());
  for (const auto& server : servers) {
    if (apply) RETURN_IF_ERROR(server->flush());
    RETURN_IF_ERROR(server->close());
  }
  return reports;
}

}  // namespace

Result<std::vector<TimerReport>> enable_trim_timer(const std::vector<GuestDiskName>& disks,
                                                   bool apply, Observer& observer,
                                                   const Cancel& cancel) {
  std::deque<GuestDisk> guest_disks;
  std::vector<std::unique_ptr<DiskServer>> servers;
  std::vector<Appliance::Drive> drives;
  for (const GuestDiskName& name : disks) {
    ASSIGN_OR_RETURN(auto disk, inspect_disk(name, apply));
    guest_disks.push_back(std::move(disk));
    // Without `apply`, the scratch file takes the writes of mounting (such as a journal replay).
    ASSIGN_OR_RETURN(auto server, DiskServer::start(guest_disks.back(),
                                                    apply ? DiskServer::Access::kWrite
                                                          : DiskServer::Access::kScratch,
                                                    cancel));
    ASSIGN_OR_RETURN(const PartitionTable table, server->partition_table());
    drives.push_back({server->socket(), false, table.sector_size, server->note()});
    servers.push_back(std::move(server));
  }
  auto reports = run_timer(drives, servers, apply, observer, cancel);
  if (!reports) return fail(explained(std::move(reports).error(), servers));
  return reports;
}

}  // namespace vc::appliance
