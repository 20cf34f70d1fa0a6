// Makes kernel filesystems on a served disk, fills, empties and trims them. Checks that their files
// are intact, and that the image is not larger than their contents.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/zero_bytes.h"
#include "tests/catch.h"
#include "tests/e2e/served_filesystem.h"
#include "tests/guest/image_file.h"
#include "tests/interop/qemu.h"
#include "tests/plugin/served_disk.h"
#include "tests/plugin/writing_server.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::Random;
using support::TempDirectory;
using test::BlockDevice;
using test::Mount;
using test::WritingServer;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kDisk = 512 * kMiB;
constexpr unsigned kFiles = 900;
// Files below this number are deleted, later ones are kept.
constexpr unsigned kFirstKept = 300;
constexpr unsigned kLastKept = 450;

std::vector<std::byte> contents(uint64_t seed, unsigned file) {
  Random random(seed * 10007 + file);
  std::vector<std::byte> bytes(random.between(1, 300 << 10));
  random.fill(bytes);
  return bytes;
}

std::string name_of(unsigned file) {
  return fmt::format("file-{}", file);
}

void make(const std::string& type, const std::string& device) {
  if (type == "ntfs")
    support::run_ok({"mkfs.ntfs", "-q", "-Q", "-F", device});
  else
    support::run_ok({"mkfs." + type, "-q", device});
}

struct Figures {
  uint64_t length = 0;    // of the image, bytes
  uint64_t on_disk = 0;   // blocks of the image, bytes
  uint64_t clusters = 0;  // allocated clusters, bytes
};

Figures measure(const std::string& image, uint64_t cluster_size) {
  struct stat status {};
  REQUIRE(::stat(image.c_str(), &status) == 0);
  const auto check = support::run_ok({"qemu-img", "check", "--output=json", image});
  const uint64_t clusters = nlohmann::json::parse(check.out).at("allocated-clusters");
  return {static_cast<uint64_t>(status.st_size), static_cast<uint64_t>(status.st_blocks) * 512,
          clusters * cluster_size};
}

struct Story {
  uint64_t live = 0;  // used by the filesystem at the end, bytes
  Figures full;       // with all files
  Figures deleted;    // after most were deleted, with the filesystem's own trims
  Figures trimmed;    // after fstrim
  uint64_t held = 0;  // clusters that hold used bytes other than zero, at the end
};

// Returns the bytes of clusters that hold used bytes other than zero, according to the metadata of
// the filesystem on this disk.
uint64_t bytes_held(const std::string& raw, uint64_t cluster_size) {
  const auto inspection = guest_test::inspect_files({raw});
  REQUIRE(inspection.volumes.size() == 1);
  INFO(inspection.volumes.front().why);
  REQUIRE(inspection.volumes.front().verdict == guest::Reading::Verdict::kFree);
  const guest::Ranges in_use = guest::one_range(0, kDisk).without(inspection.free_on(0));
  const support::RawFile file(raw);
  std::set<uint64_t> clusters;
  for (const guest::Range& it : in_use.all())
    for (uint64_t at = it.begin; at < it.end;) {
      const uint64_t end = std::min(it.end, (at / cluster_size + 1) * cluster_size);
      if (!is_zero(file.read(at, end - at))) clusters.insert(at / cluster_size);
      at = end;
    }
  return clusters.size() * cluster_size;
}

// Waits, since the kernel trims freed space with a delay, and drops pending trims at an unmount.
void wait_for_trims(const Mount& mount, const std::string& image) {
  const auto blocks = [&] {
    support::run_ok({"sync", "-f", mount.path()});
    struct stat status {};
    return ::stat(image.c_str(), &status) == 0 ? status.st_blocks : 0;
  };
  for (auto before = blocks(), now = before - 1; now != before;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    now = std::exchange(before, blocks());
  }
}

// Runs `work` with a server, and with its disk as a block device.
template <typename Work>
void with_device(const std::vector<std::string>& parameters, Work work) {
  WritingServer server(parameters);
  {
    const BlockDevice device(server.socket());
    work(device.path());
  }
  server.stop();
  INFO(server.log());
  REQUIRE(interop::check_complaint(parameters.front()) == "");
}

Story tell(const std::string& type, uint64_t cluster_size, bool coalesce, uint64_t seed) {
  const TempDirectory folder;
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", "-o", fmt::format("cluster_size={}", cluster_size),
                  image, std::to_string(kDisk)});
  const std::vector<std::string> parameters{image, fmt::format("coalesce-discard={}", coalesce)};
  Story story;
  with_device(parameters, [&](const std::string& device) {
    make(type, device);
    const Mount mount(type, device, "");
    for (unsigned file = 0; file < kFiles; ++file)
      support::write_file(mount / name_of(file), contents(seed, file));
  });
  story.full = measure(image, cluster_size);

  with_device(parameters, [&](const std::string& device) {
    const Mount mount(type, device, type == "ntfs" ? "" : "discard");
    std::vector<unsigned> order;
    for (unsigned file = 0; file < kFiles; ++file)
      if (file < kFirstKept || file > kLastKept) order.push_back(file);
    Random random(seed);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    // Deletes few files at a time, so that each trim covers scattered space.
    for (size_t i = 0; i < order.size(); ++i) {
      std::filesystem::remove(mount / name_of(order[i]));
      if (i % 25 != 24 || type == "ntfs") continue;
      support::run_ok({"sync", "-f", mount.path()});
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    if (type != "ntfs") wait_for_trims(mount, image);
  });
  story.deleted = measure(image, cluster_size);

  with_device(parameters, [&](const std::string& device) {
    const Mount mount(type, device, "");
    support::run_ok({"fstrim", mount.path()});
    story.live = mount.live();
  });
  story.trimmed = measure(image, cluster_size);

  // All kept files can be read from the image, served read-only.
  WritingServer server({image}, {"-r"});
  const std::string raw = folder / "raw";
  support::run_ok({"nbdcopy", server.uri(), raw});
  story.held = bytes_held(raw, cluster_size);
  const auto loop = support::run_ok({"losetup", "-f", "--show", "-r", raw});
  const std::string device = loop.out.substr(0, loop.out.find('\n'));
  unsigned wrong = 0;
  {
    const Mount mount(type, device, type == "xfs" ? "ro,norecovery" : "ro");
    for (unsigned file = 0; file < kFiles; ++file) {
      const bool kept = file >= kFirstKept && file <= kLastKept;
      const std::string path = mount / name_of(file);
      if (std::filesystem::exists(path) != kept ||
          (kept && support::read_file(path) != contents(seed, file)))
        ++wrong;
    }
  }
  support::run({"losetup", "-d", device});
  REQUIRE(wrong == 0);
  return story;
}

void tell_all(const std::string& type) {
  if (const std::string why = test::why_no_filesystem(type); !why.empty()) {
    WARN("skipped: " << why);
    return;
  }
  if (!test::server_ends()) {
    WARN("skipped: a server with a sanitizer's library may hang at its end");
    return;
  }
  const uint64_t seed = support::base_seed();
  uint64_t small_trims[2] = {0, 0};  // space left after small trims, with large clusters, bytes
  for (const uint64_t cluster : {64 << 10, 1 << 20, 2 << 20}) {
    Story stories[2];
    for (const bool coalesce : {false, true}) {
      CAPTURE(seed, cluster, coalesce);
      Story& story = stories[coalesce ? 1 : 0];
      story = tell(type, cluster, coalesce, seed);
      const auto line = [](const Figures& it) {
        return fmt::format("{:4} MiB long, {:4} on disk, {:4} in clusters", it.length / kMiB,
                           it.on_disk / kMiB, it.clusters / kMiB);
      };
      fmt::print(
          "{} clusters of {:4} KiB, coalesce-discard={}: {} MiB live, in clusters of {}\n"
          "  full    {}\n  deleted {}\n  trimmed {}\n",
          type, cluster >> 10, coalesce, story.live / kMiB, story.held / kMiB, line(story.full),
          line(story.deleted), line(story.trimmed));
      // Allows for tables, and for clusters that were not worth moving.
      CHECK(story.trimmed.length <=
            story.trimmed.clusters + 8 * cluster + story.trimmed.length / 16);
      if (cluster < kMiB) {
        // `live` includes the journal and other tables.
        CHECK(story.trimmed.length < story.live + 40 * kMiB);
        CHECK(story.trimmed.length < story.full.length / 2);
      }
      // Some kept clusters contain only zeros. Often they are blocks that XFS reserves for its free
      // space trees (up to 8 per allocation group), and that were trimmed before.
      CHECK(story.trimmed.clusters <= story.held + kMiB + 8 * cluster);
    }
    if (cluster >= kMiB)
      for (const int coalesce : {0, 1}) small_trims[coalesce] += stories[coalesce].deleted.clusters;
  }
  // NTFS sends no trims itself.
  if (type != "ntfs") CHECK(small_trims[1] < small_trims[0]);
}

}  // namespace

TEST_CASE("ext4 on a served disk", "[ext4]") {
  tell_all("ext4");
}

TEST_CASE("XFS on a served disk", "[xfs]") {
  tell_all("xfs");
}

TEST_CASE("NTFS on a served disk", "[ntfs]") {
  tell_all("ntfs");
}
