#include "tests/reflink/mounted_filesystem.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::reflink_test {

namespace {

// Returns why this process cannot have mounts of its own; empty: it has them.
std::string isolate() {
  if (::geteuid() != 0) return "only root can mount filesystems";
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return std::string("a mount namespace: ") + std::strerror(errno);
  return "";
}

}  // namespace

MountedFilesystem::MountedFilesystem(const std::string& type, uint64_t size) {
  static const std::string refused = isolate();
  missing_ = refused;
  if (!missing_.empty()) return;
  const std::string file = folder_ / "filesystem";
  support::write_file(file, std::string());
  support::resize_file(file, size);
  support::run_ok(type == "xfs"
                      ? std::vector<std::string>{"mkfs.xfs", "-q", "-m", "reflink=1", file}
                      : std::vector<std::string>{"mkfs.btrfs", "-q", file});
  std::filesystem::create_directory(path());
  const auto mounted = support::run({"mount", "-t", type, "-o", "loop", file, path()});
  if (!mounted.ok()) missing_ = mounted.err.substr(0, mounted.err.find('\n'));
}

MountedFilesystem::~MountedFilesystem() {
  if (missing_.empty() && ::umount(path().c_str()) != 0) ::umount2(path().c_str(), MNT_DETACH);
}

uint64_t MountedFilesystem::used() const {
  support::run_ok({"sync", "-f", path()});
  struct statvfs status {};
  if (::statvfs(path().c_str(), &status) != 0) return 0;
  return (status.f_blocks - status.f_bfree) * status.f_frsize;
}

}  // namespace vc::reflink_test
