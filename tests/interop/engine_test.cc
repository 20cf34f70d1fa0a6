// The engine reads what QEMU reads, from images of every kind that QEMU writes.
#include <array>
#include <catch2/catch.hpp>

#include "qcow2/chain.h"
#include "tests/interop/disk_comparison.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/qemu.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace interop {

using support::Random;
using support::TempDirectory;

namespace {

// What the images of a run had in them.  A maker that stopped to make a kind would make the tests
// pass for nothing.
struct Census {
  std::array<uint64_t, 4> kinds{};  // of extents, by ExtentKind
  uint64_t preallocated_zeros = 0;
  uint64_t behind = 0;  // extents from a backing file
  uint64_t snapshots = 0;
  uint64_t other_size = 0;  // snapshots of another size than the disk

  void count(const std::vector<qcow2::Extent>& extents) {
    for (const qcow2::Extent& extent : extents) {
      ++kinds[static_cast<size_t>(extent.kind)];
      if (extent.preallocated) ++preallocated_zeros;
      if (extent.depth > 0) ++behind;
    }
  }
};

void check_disk(const qcow2::Disk& disk, const MadeImage& made, const MadeDisk& expected,
                Random& random, Census& census) {
  const support::RawFile truth(expected.raw);
  REQUIRE(disk.size() == truth.size());

  std::vector<qcow2::Extent> extents;
  const auto mapped = disk.map(qcow2::GuestOffset(0), disk.size(), extents);
  REQUIRE((mapped ? "" : mapped.error().message()) == "");
  census.count(extents);
  CHECK(cover_complaint(extents, 0, disk.size(), truth) == "");
  CHECK(extent_complaint(disk, extents, truth) == "");
  CHECK(partial_map_complaint(disk, extents, random) == "");
  CHECK(qemu_map_complaint(disk, extents, qemu_map(expected.image)) == "");
  CHECK(read_complaint(disk, truth, 1, made.huge, random) == "");
  CHECK(read_complaint(disk, truth, 16, made.huge, random) == "");
}

}  // namespace

TEST_CASE("the engine reads random images as QEMU does") {
  Census census;
  const uint64_t count = support::iterations(60);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const MadeImage made = make_image(random, folder.path());
    INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n" << made.recipe);

    qcow2::OpenOptions options;
    // Room for one slice of a table: everything is evicted all the time.
    if (random.chance(40)) options.cache_size = 1;
    const auto chain = qcow2::Chain::open(made.path, options);
    REQUIRE((chain ? "" : chain.error().message()) == "");
    for (const MadeDisk& expected : made.disks) {
      INFO("snapshot: '" << expected.snapshot << "'");
      if (expected.snapshot.empty()) {
        check_disk(chain->disk(), made, expected, random, census);
        continue;
      }
      const auto snapshot = chain->snapshot(expected.snapshot);
      REQUIRE((snapshot ? "" : snapshot.error().message()) == "");
      check_disk(*snapshot, made, expected, random, census);
      ++census.snapshots;
      if (snapshot->size() != made.size) ++census.other_size;
    }
  }
  // So many images have some of everything, as good as surely.
  if (count >= 50) {
    for (const uint64_t kind : census.kinds) CHECK(kind > 0);
    CHECK(census.preallocated_zeros > 0);
    CHECK(census.behind > 0);
    CHECK(census.snapshots > 0);
    CHECK(census.other_size > 0);
  }
}

}  // namespace interop
