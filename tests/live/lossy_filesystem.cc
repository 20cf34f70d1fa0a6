#include "tests/live/lossy_filesystem.h"

#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "tests/live/stopped_tool.h"
#include "tests/support/mount_namespace.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::live_test {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSize = 384 << 20;  // bytes

// The filesystem writes nothing on its own account: neither its journal after some seconds, nor
// the data of a file that replaces another one.
constexpr const char* kOptions = "loop,commit=3600,noauto_da_alloc";

}  // namespace

LossyFilesystem::LossyFilesystem() {
  missing_ = support::enter_mount_namespace();
  if (!missing_.empty()) return;
  support::write_file(device_, std::string());
  support::resize_file(device_, kSize);
  support::run_ok({"mkfs.ext4", "-q", "-F", device_});
  const std::string trial = folder_ / "trial";
  fs::create_directory(trial);
  const auto mounted = support::run({"mount", "-o", kOptions, device_, trial});
  if (!mounted.ok()) {
    missing_ = mounted.err.substr(0, mounted.err.find('\n'));
    return;
  }
  fs::remove(fs::path(trial) / "lost+found");
  support::run_ok({"umount", trial});
}

LossyFilesystem::~LossyFilesystem() {
  if (!mounted_on_.empty()) ::umount2(mounted_on_.c_str(), MNT_DETACH);
}

void LossyFilesystem::mount(const std::string& folder) {
  mounted_on_ = folder;
  support::run_ok({"mount", "-o", kOptions, device_, mounted_on_});
}

// A process that was killed may still be ending.
void LossyFilesystem::unmount() {
  wait_until("the filesystem is in use", [&] { return ::umount(mounted_on_.c_str()) == 0; });
  mounted_on_.clear();
}

void LossyFilesystem::mount_on(const std::string& folder) {
  const std::string aside = folder_ / "aside";
  support::run_ok({"cp", "-a", folder, aside});
  mount(folder);
  support::run_ok({"cp", "-a", aside + "/.", folder});
  support::run_ok({"sync", "-f", folder});
}

void LossyFilesystem::lose_power() {
  const std::string lost = folder_ / "after";
  support::run_ok({"cp", "--sparse=always", device_, lost});
  const std::string folder = mounted_on_;
  unmount();
  fs::rename(lost, device_);
  mount(folder);
}

}  // namespace vc::live_test
