#include "tests/guest/lived_in_volume.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include "tests/e2e/served_filesystem.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::guest_test {

using support::Random;

namespace {

constexpr uint64_t kLargestFile = 4 << 20;
// Limits the number of files: each needs a process of mtools.
constexpr uint64_t kMostFilled = 100 << 20;

std::vector<std::byte> contents(uint64_t seed, unsigned number, uint64_t volume) {
  Random random(seed * 1000003 + number);
  // As many small files as large ones. In a small volume, no file takes a large part.
  const uint64_t limit = uint64_t{1} << random.between(8, 22);
  std::vector<std::byte> bytes(random.between(1, std::min({limit, kLargestFile, volume / 32})));
  random.fill(bytes);
  return bytes;
}

std::string name_of(unsigned number) {
  return fmt::format("file-{}", number);
}

std::vector<std::string> with(std::vector<std::string> command, const std::string& last) {
  command.push_back(last);
  return command;
}

}  // namespace

// Access to the files of a volume, through the kernel, FUSE or mtools.
class LivedInVolume::Access {
 public:
  Access(const Kind& kind, const std::string& path, bool writable) : path_(path) {
    if (kind.mount.empty()) return;
    const auto loop = support::run_ok({"losetup", "-f", "--show", path});
    device_ = loop.out.substr(0, loop.out.find('\n'));
    std::vector<std::string> command{"mount", "-t", kind.mount};
    if (kind.mount == "ntfs") command = {"ntfs-3g"};
    if (kind.mount == "exfat") command = {"mount.exfat-fuse"};
    std::string options = kind.mount_options;
    if (!writable) options += options.empty() ? "ro" : ",ro";
    if (!options.empty()) command.insert(command.end(), {"-o", options});
    command.insert(command.end(), {device_, folder_.path()});
    const auto mounted = support::run(command);
    is_mounted_ = mounted.ok();
    if (is_mounted_) return;
    support::run({"losetup", "-d", device_});
    throw std::runtime_error(mounted.describe());
  }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
  ~Access() {
    if (!is_mounted_) return;
    if (!support::run({"umount", folder_.path()}).ok())
      support::run({"umount", "-l", folder_.path()});
    // FUSE's daemon may still have the device open.
    for (int i = 0; i < 100 && !support::run({"losetup", "-d", device_}).ok(); ++i) ::usleep(50000);
  }

  // Returns false if there is no space left.
  bool write(unsigned number, const std::vector<std::byte>& bytes) const {
    try {
      support::write_file(file(number), bytes);
    } catch (const std::runtime_error&) {
      if (is_mounted_) support::run({"rm", "-f", file(number)});
      return false;
    }
    if (is_mounted_) return true;
    const bool fits = support::run({"mcopy", "-i", path_, file(number), "::"}).ok();
    std::filesystem::remove(file(number));
    if (!fits) support::run({"mdel", "-i", path_, "::" + name_of(number)});
    return fits;
  }
  void remove(unsigned number) const {
    if (is_mounted_)
      std::filesystem::remove(file(number));
    else
      support::run_ok({"mdel", "-i", path_, "::" + name_of(number)});
  }
  std::vector<std::byte> read(unsigned number) const {
    if (!is_mounted_)
      support::run_ok({"mcopy", "-n", "-o", "-i", path_, "::" + name_of(number), file(number)});
    return support::read_file(file(number));
  }
  void sync() const { support::run_ok({"sync", "-f", folder_.path()}); }

 private:
  std::string file(unsigned number) const { return folder_ / name_of(number); }

  const support::TempDirectory folder_;
  const std::string path_;
  std::string device_;
  bool is_mounted_ = false;
};

std::string why_no_volume(const Kind& kind) {
  if (kind.mount.empty()) return {};
  if (kind.mount != "exfat") return test::why_no_filesystem(kind.mount);
  if (::geteuid() != 0) return "only root mounts";
  return ::access("/dev/fuse", R_OK | W_OK) == 0 ? "" : "no /dev/fuse";
}

LivedInVolume::LivedInVolume(const Kind& kind, Random& random)
    : kind_(kind), path_(folder_ / "volume"), seed_(random.next()) {
  support::write_file(path_, std::string());
  support::resize_file(path_, kind.size);
  support::run_ok(with(kind.make, path_));
  const Access access(kind_, path_, true);
  const uint64_t amount = std::min(kind.size, kMostFilled) * random.between(30, 70) / 100;
  add_files(access, amount, random);
  remove_files(access, static_cast<unsigned>(random.between(30, 70)), random);
  add_files(access, amount / 10, random);
}

void LivedInVolume::add_files(const Access& access, uint64_t bytes, Random& /*random*/) {
  for (uint64_t done = 0; done < bytes;) {
    const auto content = contents(seed_, next_, kind_.size);
    if (!access.write(next_, content)) return;
    files_.push_back(next_++);
    done += content.size();
  }
}

void LivedInVolume::remove_files(const Access& access, unsigned percent, Random& random) {
  std::vector<unsigned> kept;
  for (const unsigned number : files_) {
    if (random.chance(percent))
      access.remove(number);
    else
      kept.push_back(number);
  }
  files_ = std::move(kept);
}

std::string LivedInVolume::copy_while_mounted(Random& random) {
  const std::string copy = folder_ / "mounted";
  const Access access(kind_, path_, true);
  add_files(access, kind_.size / 50, random);
  access.sync();
  support::run_ok({"cp", "--sparse=always", path_, copy});
  return copy;
}

std::string LivedInVolume::copy_with_garbage(const guest::Ranges& ranges) const {
  const std::string copy = folder_ / "garbage";
  support::run_ok({"cp", "--sparse=always", path_, copy});
  const std::vector<std::byte> garbage(1 << 20, std::byte{0xA5});
  for (const guest::Range& range : ranges.all())
    for (uint64_t at = range.begin; at < range.end; at += garbage.size())
      support::patch_file(
          copy, at, std::span(garbage).first(std::min<uint64_t>(garbage.size(), range.end - at)));
  return copy;
}

std::string LivedInVolume::complaint(const std::string& copy) const {
  const auto checked = support::run(with(kind_.check, copy));
  if (!checked.ok()) return checked.describe();
  const Access access(kind_, copy, false);
  for (const unsigned number : files_)
    if (access.read(number) != contents(seed_, number, kind_.size))
      return name_of(number) + " differs";
  return {};
}

std::string LivedInVolume::complaint_after_use(const std::string& copy) const {
  {
    const Access access(kind_, copy, true);
    // Numbers of files that were never in the volume.
    for (unsigned number = next_; number < next_ + 40; ++number)
      if (!access.write(number, contents(seed_, number, kind_.size))) break;
  }
  return complaint(copy);
}

}  // namespace vc::guest_test
