// Tests LVM2. lvm(8) makes the groups, without the kernel's device mapper.
#include <fmt/format.h>

#include <unistd.h>

#include <cstring>

#include "guest/reading/checksums.h"
#include "tests/catch_text.h"
#include "tests/guest/image_file.h"
#include "tests/guest/volume_group.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using guest::Reading;
using guest_test::VolumeGroup;
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kExtent = VolumeGroup::kExtent;
constexpr uint64_t kStripe = VolumeGroup::kStripe;

// Changes a physical volume's text about its group.
template <typename Change>
void change_text(const std::string& path, const Change& change) {
  constexpr uint64_t kArea = 4096;
  auto header = support::RawFile(path).read(kArea, 512);
  uint64_t place[2];
  std::memcpy(place, header.data() + 40, sizeof place);
  const auto bytes = support::RawFile(path).read(kArea + place[0], place[1]);
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  change(text);
  place[1] = text.size();
  const auto changed = std::as_bytes(std::span(text));
  const uint32_t of_text = guest::crc32_lvm(changed);
  std::memcpy(header.data() + 40, place, sizeof place);
  std::memcpy(header.data() + 56, &of_text, 4);
  const uint32_t of_header = guest::crc32_lvm(std::span<const std::byte>(header).subspan(4));
  std::memcpy(header.data(), &of_header, 4);
  support::patch_file(path, kArea + place[0], changed);
  support::patch_file(path, kArea, header);
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
}

const guest::Volume& named(const guest::Inspection& inspection, const std::string& device) {
  for (const guest::Volume& volume : inspection.volumes)
    if (volume.device == device) return volume;
  FAIL("there is no " + device);
  return inspection.volumes.front();
}

}  // namespace

TEST_CASE("logical volumes are found, and extents of no volume are free", "[lvm]") {
  if (::geteuid() != 0) {
    WARN("not tried: only root has loop devices");
    return;
  }
  const VolumeGroup group;
  const TempDirectory folder;
  const std::string file = folder / "filesystem";
  support::write_file(file, std::string());
  support::resize_file(file, 80 * kMiB);
  support::run_ok({"mke2fs", "-q", "-F", "-t", "ext4", "-d", "/usr/share/common-licenses", file});
  group.put(VolumeGroup::linear(), file);
  group.put(VolumeGroup::striped(), file);
  const uint64_t free = guest_test::inspect_files({file}).free_on(0).total();

  const auto inspection = guest_test::inspect_files(group.paths());
  CHECK(inspection.doubts.empty());
  CHECK(named(inspection, "group").free == 58 * kExtent);
  for (const char* const name : {"/dev/group/linear", "/dev/group/striped"}) {
    INFO(name);
    const auto& volume = named(inspection, name);
    INFO(volume.why);
    CHECK(volume.verdict == Reading::Verdict::kFree);
    CHECK(volume.type == "ext4");
    CHECK(volume.size == 80 * kMiB);
    CHECK(volume.free == free);
  }
  // Overwrites all free space: both filesystems are unchanged.
  const std::vector<std::byte> garbage(kStripe, std::byte{0xA5});
  for (size_t disk = 0; disk < 2; ++disk)
    for (const auto& range : inspection.free_on(disk).all())
      for (uint64_t at = range.begin; at < range.end; at += garbage.size())
        support::patch_file(
            group.paths()[disk], at,
            std::span(garbage).first(std::min<uint64_t>(garbage.size(), range.end - at)));
  const std::string taken = folder / "taken";
  for (const auto& pieces : {VolumeGroup::linear(), VolumeGroup::striped()}) {
    VolumeGroup::take(group.paths(), pieces, taken);
    CHECK(support::run({"e2fsck", "-f", "-n", taken}).ok());
    CHECK(support::run({"debugfs", "-R", "cat /GPL-3", taken}).out ==
          support::run({"cat", "/usr/share/common-licenses/GPL-3"}).out);
  }
}

TEST_CASE("a volume group with a missing disk is read as far as possible", "[lvm]") {
  if (::geteuid() != 0) {
    WARN("not tried: only root has loop devices");
    return;
  }
  const VolumeGroup group;
  const auto inspection = guest_test::inspect_files({group.paths()[1]});
  CHECK(named(inspection, "group").free == 29 * kExtent);
  CHECK(named(inspection, "/dev/group/linear").verdict == Reading::Verdict::kLeftAlone);
  // A physical volume with a damaged label or a damaged text is doubted.
  const auto label = support::RawFile(group.paths()[1]).read(512, 1)[0];
  support::patch_file(group.paths()[1], 512 + 32, std::as_bytes(std::span("x", 1)));
  CHECK(guest_test::inspect_files({group.paths()[1]}).free_on(0).empty());
  CHECK(label == std::byte{'L'});
  support::patch_file(group.paths()[0], 4096 + 512 + 20, std::as_bytes(std::span("x", 1)));
  const auto damaged = guest_test::inspect_files({group.paths()[0]});
  CHECK(damaged.free_on(0).total() <= 29 * kExtent);
}

TEST_CASE("a logical volume that is the disk of another guest is doubted", "[lvm]") {
  if (::geteuid() != 0) {
    WARN("not tried: only root has loop devices");
    return;
  }
  const VolumeGroup group;
  const TempDirectory folder;
  const std::string file = folder / "disk";
  support::write_file(file, std::string());
  support::resize_file(file, 80 * kMiB);
  support::run_ok({"mkswap", "-q", file});
  group.put(VolumeGroup::linear(), file);
  CHECK(named(guest_test::inspect_files(group.paths()), "/dev/group/linear").free > 0);
  support::RunOptions how;
  how.input = "label: dos\nstart=2048, size=8192, type=83\n";
  support::run_ok({"sfdisk", "-q", "--wipe=never", file}, how);
  group.put(VolumeGroup::linear(), file);
  const auto inspection = guest_test::inspect_files(group.paths());
  const auto& volume = named(inspection, "/dev/group/linear");
  CHECK(volume.verdict == Reading::Verdict::kDoubt);
  CHECK_THAT(volume.why, Catch::Contains("partition table of its own"));
  CHECK(volume.free == 0);
}

TEST_CASE("two versions of a volume group with the same number are doubted", "[lvm]") {
  if (::geteuid() != 0) {
    WARN("not tried: only root has loop devices");
    return;
  }
  const VolumeGroup group;
  CHECK(named(guest_test::inspect_files(group.paths()), "group").free == 58 * kExtent);
  change_text(group.paths()[1], [](std::string& text) { replace(text, "striped {", "another {"); });
  // Alone, it is as trustworthy as before.
  CHECK(named(guest_test::inspect_files({group.paths()[1]}), "group").free == 29 * kExtent);
  const auto inspection = guest_test::inspect_files(group.paths());
  CHECK_THAT(named(inspection, "group").why, Catch::Contains("have different ages"));
  CHECK(inspection.free_on(0).empty());
  CHECK(inspection.free_on(1).empty());
}

TEST_CASE("a physical volume that was missing in its group is doubted", "[lvm]") {
  if (::geteuid() != 0) {
    WARN("not tried: only root has loop devices");
    return;
  }
  const VolumeGroup group;
  for (const std::string& path : group.paths())
    change_text(path, [](std::string& text) {
      text.resize(text.rfind("\n}\n") + 3, '\0');
      const size_t at = text.find("flags", text.find("pv0 {"));
      text.replace(at, text.find('\n', at) - at, "flags = [\"MISSING\"]");
      text.push_back('\0');
    });
  const auto inspection = guest_test::inspect_files(group.paths());
  CHECK_THAT(named(inspection, "group").why, Catch::Contains("missing"));
  CHECK(inspection.free_on(0).empty());
  CHECK(inspection.free_on(1).empty());
}

TEST_CASE("volume groups whose metadata take too much memory are doubted", "[lvm]") {
  if (::geteuid() != 0) {
    WARN("not tried: only root has loop devices");
    return;
  }
  const VolumeGroup group;
  const TempDirectory folder;
  std::vector<std::string> paths;
  // Adds other groups, with texts of 900 KiB.
  for (const char name : {'a', 'b', 'c'}) {
    paths.push_back(folder / std::string(1, name));
    support::run_ok({"cp", "--sparse=always", group.paths()[0], paths.back()});
    change_text(paths.back(), [&](std::string& text) {
      text[text.find("id = \"") + 6] = name;
      text.insert(0, '#' + std::string((900 << 10) - text.size(), 'x') + '\n');
    });
  }
  CHECK(guest_test::inspect_files({paths[0], paths[1]}).free_on(1).total() == 29 * kExtent);
  const auto three = guest_test::inspect_files(paths);
  for (size_t disk = 0; disk < paths.size(); ++disk) CHECK(three.free_on(disk).empty());
  CHECK_THAT(named(three, "group").why, Catch::Contains("too long to be read here"));

  // A single text that is too long, in a larger area.
  constexpr uint64_t kArea = 4096;
  constexpr uint64_t kSize = 4 * kMiB;
  const std::string& path = paths[0];
  support::patch_file(path, kArea + 32, std::as_bytes(std::span(&kSize, 1)));
  change_text(path, [](std::string& text) { text += std::string(kMiB, 'x'); });
  auto label = support::RawFile(path).read(512, 512);
  for (size_t at = 20; at + 16 <= label.size(); ++at) {
    uint64_t area = 0;
    std::memcpy(&area, label.data() + at, sizeof area);
    if (area == kArea) std::memcpy(label.data() + at + 8, &kSize, sizeof kSize);
  }
  const uint32_t crc = guest::crc32_lvm(std::span<const std::byte>(label).subspan(20));
  std::memcpy(label.data() + 16, &crc, sizeof crc);
  support::patch_file(path, 512, label);
  const auto one = guest_test::inspect_files({path});
  REQUIRE(one.volumes.size() == 1);
  CHECK_THAT(one.volumes[0].why, Catch::Contains("too long to be read here"));
}
