// Tests virt-compact trim --metadata on used filesystems.
#include <fmt/format.h>
#include <unistd.h>

#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/guest/lived_in_volume.h"
#include "tests/guest/volume_group.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/tool/commands/trim/small_guest.h"

using namespace vc;

using Catch::Contains;
using guest_test::Kind;
using guest_test::LivedInVolume;
using guest_test::VolumeGroup;
using nlohmann::json;
using support::Random;
using support::run_ok;
using support::TempDirectory;
using tool_test::run_tool;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 64 << 10;

json space(const std::vector<std::string>& images) {
  std::vector<std::string> words{"space", "--json"};
  words.insert(words.end(), images.begin(), images.end());
  const auto outcome = run_tool(words);
  INFO(outcome.describe());
  REQUIRE(outcome.ok());
  return json::parse(outcome.out);
}

uint64_t length_of(const std::string& path) {
  return support::RawFile(path).size();
}

// Checks a raw disk: free space reads as zeros, in whole clusters.
void check_zeros(const std::string& raw, const guest::Ranges& free) {
  const support::RawFile file(raw);
  for (const guest::Range& range : free.all()) {
    const uint64_t begin = (range.begin + kCluster - 1) / kCluster * kCluster;
    const uint64_t end = range.end == file.size() ? range.end : range.end / kCluster * kCluster;
    if (begin < end) CHECK_FALSE(file.first_nonzero(begin, end - begin).has_value());
  }
}

void trim_volume(const Kind& kind) {
  if (const std::string why = guest_test::why_no_volume(kind); !why.empty()) {
    WARN(kind.name << ": not tried: " << why);
    return;
  }
  const uint64_t seed = support::base_seed();
  INFO(kind.name << ", VIRT_COMPACT_SEED=" << seed);
  Random random(seed);
  const LivedInVolume lived_in(kind, random);
  const TempDirectory folder;
  const std::string image = folder / "image", raw = folder / "raw";
  run_ok({"qemu-img", "convert", "-O", "qcow2", "-S", "0", lived_in.path(), image});
  const guest::Ranges free = guest_test::inspect_files({lived_in.path()}).free_on(0);
  const uint64_t length = length_of(image);
  const json told = space({image})["filesystems"][0];
  const uint64_t predicted = trim_test::freed(trim_test::trim({"--dry-run", image}));
  CHECK(length_of(image) == length);

  const json report = trim_test::trim({image});
  CAPTURE(report.dump(1));
  CHECK(report["complete"] == true);
  CHECK(report["filesystems"][0]["outcome"] == "trimmed");
  CHECK(report["filesystems"][0]["used"] == told["used"]);
  // Everything except the ends of ranges that are inside of a cluster.
  const uint64_t freed = trim_test::freed(report);
  CHECK(freed == predicted);
  CHECK(freed > kind.size / 20);
  CHECK(freed <= told["free-stored"].get<uint64_t>());
  CHECK(freed + 2 * kCluster * free.all().size() >= told["free-stored"].get<uint64_t>());
  const json& disk = report["disks"][0];
  CHECK(disk["data-after"] == disk["data-before"].get<uint64_t>() - freed);
  CHECK(disk["after"]["length"] == length_of(image));
  // Metadata of the image moves, too.
  CHECK(length_of(image) <= length - freed + kMiB);

  CHECK(support::run({"qemu-img", "check", "-q", image}).ok());
  run_ok({"qemu-img", "convert", "-O", "raw", image, raw});
  check_zeros(raw, free);
  CHECK(lived_in.complaint(raw) == "");
  CHECK(lived_in.complaint_after_use(raw) == "");

  const json again = trim_test::trim({image});
  CHECK(trim_test::freed(again) == 0);
  CHECK(again["disks"][0]["after"] == again["disks"][0]["before"]);
}

}  // namespace

TEST_CASE("a trim by metadata keeps the files on ext4 and XFS", "[trim]") {
  trim_volume(
      {"ext4", 200 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext4"}, {"e2fsck", "-f", "-n"}, "ext4"});
  trim_volume({"ext4 with blocks of 1 KiB",
               200 * kMiB,
               {"mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024"},
               {"e2fsck", "-f", "-n"},
               "ext4"});
  trim_volume(
      {"xfs", 320 * kMiB, {"mkfs.xfs", "-q", "-f"}, {"xfs_repair", "-n", "-f"}, "xfs", "nouuid"});
}

TEST_CASE("a trim by metadata keeps the files on NTFS, FAT and btrfs", "[trim]") {
  trim_volume({"NTFS", 160 * kMiB, {"mkntfs", "-q", "-Q", "-F"}, {"ntfsfix", "-n"}, "ntfs"});
  trim_volume({"FAT32", 100 * kMiB, {"mkfs.fat", "-F", "32"}, {"fsck.fat", "-n"}, ""});
  trim_volume({"exFAT", 160 * kMiB, {"mkfs.exfat"}, {"fsck.exfat", "-n"}, "exfat"});
  trim_volume(
      {"btrfs", 256 * kMiB, {"mkfs.btrfs", "-q", "-f"}, {"btrfs", "check", "--readonly"}, "btrfs"});
}

TEST_CASE("a trim by metadata covers logical volumes on two disks", "[trim][lvm]") {
  if (::geteuid() != 0) {
    WARN("not tried: only root has loop devices");
    return;
  }
  const VolumeGroup group;
  const TempDirectory folder;
  // Fills both disks with data, except for LVM's own metadata.
  const std::vector<std::byte> data(kMiB, std::byte{0x5A});
  for (const std::string& path : group.paths())
    for (uint64_t at = kMiB; at < 200 * kMiB; at += kMiB) support::patch_file(path, at, data);
  const std::string file = folder / "filesystem";
  support::write_file(file, std::string(VolumeGroup::kVolume, 'y'));
  run_ok({"mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard", "-d", "/usr/share/common-licenses",
          file});
  group.put(VolumeGroup::linear(), file);
  group.put(VolumeGroup::striped(), file);
  std::vector<std::string> images{folder / "one", folder / "two"}, raws;
  for (size_t i = 0; i < 2; ++i)
    run_ok({"qemu-img", "convert", "-O", "qcow2", group.paths()[i], images[i]});
  const json told = space(images);
  const json report = trim_test::trim(images);
  CAPTURE(told.dump(1), report.dump(1));
  REQUIRE(report["filesystems"].size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    const json& it = report["filesystems"][i];
    CHECK(it["device"] == told["filesystems"][i]["device"]);
    CHECK(it["outcome"] == (it["type"] == "ext4" ? "trimmed" : "discarded"));
    const uint64_t stored = told["filesystems"][i]["free-stored"];
    CHECK(it["freed"].get<uint64_t>() <= stored);
    CHECK(it["freed"].get<uint64_t>() + 2 * kMiB >= stored);
  }
  for (const std::string& image : images) {
    CHECK(support::run({"qemu-img", "check", "-q", image}).ok());
    raws.push_back(image + ".raw");
    run_ok({"qemu-img", "convert", "-O", "raw", image, raws.back()});
  }
  const std::string taken = folder / "taken";
  for (const auto& pieces : {VolumeGroup::linear(), VolumeGroup::striped()}) {
    VolumeGroup::take(raws, pieces, taken);
    CHECK(support::run({"e2fsck", "-f", "-n", taken}).ok());
    CHECK(support::run({"debugfs", "-R", "cat /GPL-3", taken}).out ==
          support::run({"cat", "/usr/share/common-licenses/GPL-3"}).out);
  }
  CHECK(trim_test::freed(trim_test::trim(images)) == 0);
}

TEST_CASE("a filesystem that was not unmounted is not trimmed, and the reason is reported",
          "[trim]") {
  const Kind kind{
      "ext4", 64 * kMiB, {"mke2fs", "-q", "-F", "-t", "ext4"}, {"e2fsck", "-f", "-n"}, "ext4"};
  if (const std::string why = guest_test::why_no_volume(kind); !why.empty()) {
    WARN("not tried: " << why);
    return;
  }
  Random random(support::base_seed());
  LivedInVolume lived_in(kind, random);
  const TempDirectory folder;
  const std::string image = folder / "image";
  run_ok({"qemu-img", "convert", "-O", "qcow2", lived_in.copy_while_mounted(random), image});
  const auto before = support::read_file(image);
  const auto outcome = run_tool({"trim", "--metadata", image});
  CAPTURE(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("/dev/sda: is not trimmed: ") && Contains("journal") &&
                              Contains("nothing was trimmed"));
  CHECK(support::read_file(image) == before);
}
