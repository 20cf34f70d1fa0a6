#include "tests/e2e/served_filesystem.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "tests/support/raw_file.h"

namespace vc::test {

namespace {

template <typename Done>
bool wait_until(Done done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
  return true;
}

// Returns true if `path` is a mount point.
bool is_mounted(const std::string& path, const std::string& parent) {
  struct stat own {};
  struct stat around {};
  return ::stat(path.c_str(), &own) == 0 && ::stat(parent.c_str(), &around) == 0 &&
         own.st_dev != around.st_dev;
}

}  // namespace

std::string why_no_filesystem(const std::string& type) {
  if (::geteuid() != 0) return "only root has loop devices";
  if (::access("/dev/fuse", R_OK | W_OK) != 0) return "no /dev/fuse";
  // ntfs-3g uses FUSE.
  if (type != "ntfs") {
    const auto known = [&] {
      std::ifstream list("/proc/filesystems");
      for (std::string word; list >> word;)
        if (word == type) return true;
      return false;
    };
    if (!known()) support::run({"sh", "-c", "modprobe " + type});
    if (!known()) return "the kernel has no " + type;
  }
  const support::TempDirectory folder;
  const std::string file = folder / "file";
  support::write_file(file, std::string(1 << 20, 'x'));
  const auto loop = support::run({"losetup", "-f", "--show", file});
  if (!loop.ok()) return "no loop device: " + loop.err;
  support::run({"losetup", "-d", loop.out.substr(0, loop.out.find('\n'))});
  return {};
}

BlockDevice::BlockDevice(const std::string& socket) {
  const std::string file = folder_ / "disk";
  support::write_file(file, std::string());
  daemon_ = std::make_unique<support::Child>(
      std::vector<std::string>{"nbdfuse", file, "--unix", socket}, folder_ / "log");
  const bool up =
      wait_until([&] { return !daemon_->running() || is_mounted(file, folder_.path()); });
  if (!up || !daemon_->running()) {
    const auto log = support::read_file(folder_ / "log");
    throw std::runtime_error("nbdfuse: " +
                             std::string(reinterpret_cast<const char*>(log.data()), log.size()));
  }
  const auto loop = support::run_ok({"losetup", "-f", "--show", file});
  path_ = loop.out.substr(0, loop.out.find('\n'));
}

BlockDevice::~BlockDevice() {
  support::run({"blockdev", "--flushbufs", path_});
  support::run({"losetup", "-d", path_});
  ::kill(daemon_->pid(), SIGTERM);
  if (!wait_until([&] { return !daemon_->running(); }))
    support::run({"umount", "-l", folder_ / "disk"});
}

Mount::Mount(const std::string& type, const std::string& device, const std::string& options) {
  std::vector<std::string> command{"mount", "-t", type};
  // The kernel's own driver cannot write on all systems.
  if (type == "ntfs") command = {"ntfs-3g"};
  if (!options.empty()) command.insert(command.end(), {"-o", options});
  command.insert(command.end(), {device, folder_.path()});
  support::run_ok(command);
}

Mount::~Mount() {
  if (support::run({"umount", folder_.path()}).ok()) return;
  support::run({"umount", "-l", folder_.path()});
}

uint64_t Mount::live() const {
  struct statvfs numbers {};
  if (::statvfs(folder_.path().c_str(), &numbers) != 0) throw std::runtime_error("statvfs");
  return (numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize;
}

}  // namespace vc::test
