// The engine reads the same as QEMU from all kinds of images that QEMU writes.
#include <array>

#include "qcow2/read/chain.h"
#include "tests/catch.h"
#include "tests/interop/corner_images.h"
#include "tests/interop/disk_comparison.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/qemu.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::interop {

using support::Random;
using support::TempDirectory;

namespace {

// Counts the features of the images of a run. Without this, the tests would still pass if the maker
// stopped making some kind.
struct Census {
  std::array<uint64_t, 4> kinds{};  // of extents, by ExtentKind
  uint64_t preallocated_zeros = 0;
  uint64_t from_backing = 0;  // extents from a backing file
  uint64_t snapshots = 0;
  uint64_t other_size = 0;  // snapshots of another size than the disk

  void count(const std::vector<qcow2::Extent>& extents) {
    for (const qcow2::Extent& extent : extents) {
      ++kinds[static_cast<size_t>(extent.kind)];
      if (extent.preallocated) ++preallocated_zeros;
      if (extent.depth > 0) ++from_backing;
    }
  }
};

template <typename T>
T value_or_fail(Result<T> result) {
  INFO((result ? "" : result.error().message()));
  REQUIRE(result);
  return std::move(*result);
}

}  // namespace

TEST_CASE("the engine reads random images as QEMU does", "[engine]") {
  Census census;
  const uint64_t count = support::iterations(50);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const MadeImage made = make_image(random, folder.path());
    INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n" << made.recipe);

    qcow2::OpenOptions options;
    // Space for one slice of a table: each access evicts the previous slice.
    if (random.chance(40)) options.cache_size = 1;
    const qcow2::Chain chain = value_or_fail(qcow2::Chain::open(made.path, options));
    for (const MadeDisk& expected : made.disks) {
      INFO("snapshot: '" << expected.snapshot << "'");
      const qcow2::Disk disk = expected.snapshot.empty()
                                   ? chain.disk()
                                   : value_or_fail(chain.snapshot(expected.snapshot));
      std::vector<qcow2::Extent> extents;
      REQUIRE_NOTHROW(extents =
                          require_same_disk(disk, expected.image, expected.raw, made.huge, random));
      census.count(extents);
      if (expected.snapshot.empty()) continue;
      ++census.snapshots;
      if (disk.size() != made.size) ++census.other_size;
    }
  }
  // So many images certainly have every feature. Fifty images may lack one by chance.
  if (count >= 300) {
    for (const uint64_t kind : census.kinds) CHECK(kind > 0);
    CHECK(census.preallocated_zeros > 0);
    CHECK(census.from_backing > 0);
    CHECK(census.snapshots > 0);
    CHECK(census.other_size > 0);
  }
}

TEST_CASE("the engine reads corner cases as QEMU does", "[engine]") {
  const TempDirectory folder;
  Random random(support::base_seed());
  for (const CornerImage& corner : make_corner_images(folder.path())) {
    INFO(corner.name);
    const std::string raw = corner.path + ".raw";
    convert_to_raw(corner.path, raw);
    const qcow2::Chain chain = value_or_fail(qcow2::Chain::open(corner.path, {}));
    REQUIRE_NOTHROW(require_same_disk(chain.disk(), corner.path, raw, false, random));
    for (const qcow2::Snapshot& snapshot : chain.image()->snapshots()) {
      INFO("snapshot: " << snapshot.name);
      const std::string snapshot_raw = corner.path + ".snapshot.raw";
      support::run_ok({"qemu-img", "convert", "-O", "raw", "-l", "snapshot.name=" + snapshot.name,
                       corner.path, snapshot_raw});
      const qcow2::Disk disk = value_or_fail(chain.snapshot(snapshot.name));
      const support::RawFile truth(snapshot_raw);
      REQUIRE(disk.size() == truth.size());
      CHECK(read_complaint(disk, truth, 1, false, random) == "");
    }
  }
}

}  // namespace vc::interop
