#include "tests/guest/volume_group.h"

#include <fmt/format.h>

#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::guest_test {

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kStart = kMiB;  // of extent 0

}  // namespace

VolumeGroup::VolumeGroup() {
  for (const char* const name : {"one", "two"}) {
    paths_.push_back(folder_ / name);
    support::write_file(paths_.back(), std::string());
    support::resize_file(paths_.back(), 200 * kMiB);
    const auto loop = support::run_ok({"losetup", "-f", "--show", paths_.back()});
    loops_.push_back(loop.out.substr(0, loop.out.find('\n')));
  }
  lvm({"pvcreate", "-q", loops_[0], loops_[1]});
  lvm({"vgcreate", "-q", "group", loops_[0], loops_[1]});
  create({"-n", "linear", "-L", "40M", "group", loops_[0]});
  create({"-n", "striped", "-i", "2", "-I", "64k", "-L", "80M", "group"});
  lvm({"lvextend", "-L", "+40M", "group/linear", loops_[1]});
  for (const std::string& loop : loops_) support::run_ok({"losetup", "-d", loop});
}

std::vector<VolumeGroup::Piece> VolumeGroup::linear() {
  return {{0, kStart, 10 * kExtent}, {1, kStart + 10 * kExtent, 10 * kExtent}};
}

std::vector<VolumeGroup::Piece> VolumeGroup::striped() {
  std::vector<Piece> pieces;
  for (uint64_t i = 0; i < kVolume / kStripe; ++i)
    pieces.push_back({i % 2, kStart + (i % 2 == 0 ? 10 * kExtent : 0) + i / 2 * kStripe, kStripe});
  return pieces;
}

void VolumeGroup::put(const std::vector<Piece>& pieces, const std::string& from) const {
  const support::RawFile file(from);
  uint64_t done = 0;
  for (const Piece& piece : pieces) {
    support::patch_file(paths_[piece.disk], piece.at, file.read(done, piece.length));
    done += piece.length;
  }
}

void VolumeGroup::take(const std::vector<std::string>& disks, const std::vector<Piece>& pieces,
                       const std::string& to) {
  support::write_file(to, std::string());
  support::resize_file(to, kVolume);
  uint64_t done = 0;
  for (const Piece& piece : pieces) {
    support::patch_file(to, done, support::RawFile(disks[piece.disk]).read(piece.at, piece.length));
    done += piece.length;
  }
}

void VolumeGroup::lvm(std::vector<std::string> command) const {
  const std::string config = fmt::format(
      "devices {{ filter=[\"a|^{}$|\",\"a|^{}$|\",\"r|.*|\"] use_devicesfile=0 }} "
      "global {{ use_lvmpolld=0 }} activation {{ monitoring=0 udev_sync=0 udev_rules=0 }} "
      "backup {{ backup=0 archive=0 }}",
      loops_[0], loops_[1]);
  command.insert(command.begin() + 1, {"--config", config, "--driverloaded", "n"});
  support::run_ok(command);
}

void VolumeGroup::create(const std::vector<std::string>& arguments) const {
  std::vector<std::string> command{"lvcreate", "-an", "-Zn", "-Wn"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  lvm(command);
}

}  // namespace vc::guest_test
