#include "tests/reflink/mounted_filesystem.h"

#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>

#include "tests/support/mount_namespace.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::reflink_test {

MountedFilesystem::MountedFilesystem(const std::string& type, uint64_t size) {
  missing_ = support::enter_mount_namespace();
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
