// An encrypted disk with snapshots and bitmaps: optimize loses nothing of it.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/encryption/luks_disk.h"

using namespace vc;
using namespace vc::tool_test;

using support::TempDirectory;

namespace {

constexpr uint64_t kSize = 3 << 20;

// Makes a disk with the snapshots "first" and "second", and the bitmaps "since" and "before", which
// is disabled.  Its refcounts count the disk and two snapshots, and not one reference more.
// No snapshot has a VM state: QEMU 7.2 aborts if it saves one into an encrypted image.
void make_disk(const std::string& disk, uint64_t seed) {
  create_luks(disk, std::to_string(kSize), ",refcount_bits=2");
  qemu_io(disk, random_writes(seed, kSize, 12));
  qemu_img({"bitmap", "--add", "-g", "4k"}, disk, {"before"});
  qemu_io(disk, random_writes(seed + 1, kSize, 3));
  qemu_img({"bitmap", "--disable"}, disk, {"before"});
  qemu_img({"snapshot", "-q", "-c", "first"}, disk);
  qemu_img({"bitmap", "--add", "-g", "8k"}, disk, {"since"});
  qemu_io(disk, random_writes(seed + 2, kSize, 6));
  qemu_img({"snapshot", "-q", "-c", "second"}, disk);
  qemu_io(disk, random_writes(seed + 3, kSize, 3));
}

nlohmann::json details(const std::string& disk) {
  return nlohmann::json::parse(qemu_img({"info", "--output=json"}, disk).out)
      .at("format-specific")
      .at("data");
}

}  // namespace

TEST_CASE("optimize keeps snapshots, bitmaps and encryption of one disk", "[encryption]") {
  const uint64_t seed = support::base_seed();
  const std::string clusters = GENERATE("64k", "16k");
  CAPTURE(seed, clusters);
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  const std::string key = key_in_file(folder / "key");
  make_disk(disk, seed);
  const std::vector<std::string> snapshots{"first", "second"};
  const std::vector<std::string> bitmaps{"before", "since"};

  const auto done =
      run_tool({"optimize", "--trim=none", key, "--options", "cluster_size=" + clusters, disk});
  INFO(done.describe());
  REQUIRE(done.ok());
  CHECK(done.err.empty());
  const std::string old = disk + ".bak";
  REQUIRE(support::first_difference(disk, old));
  const auto check = qemu_check(disk);
  INFO(check.describe());
  CHECK(check.ok());
  CHECK((check.out + check.err).empty());
  CHECK((luks_header(disk) == luks_header(old)));
  CHECK((qemu_reads(disk) == qemu_reads(old)));
  for (const std::string& it : snapshots)
    CHECK((qemu_reads_snapshot(disk, it) == qemu_reads_snapshot(old, it)));
  CHECK(qemu_img({"snapshot", "-l"}, disk).out == qemu_img({"snapshot", "-l"}, old).out);
  const auto after = details(disk);
  CHECK(after.at("bitmaps") == details(old).at("bitmaps"));
  CHECK(after.at("bitmaps").size() == 2);
  for (const std::string& it : bitmaps) CHECK(qemu_dirty_map(disk, it) == qemu_dirty_map(old, it));
  CHECK_THAT(qemu_dirty_map(disk, "since"), Catch::Contains("dirty"));

  // The refcounts have space for the reference that an applied snapshot needs.
  CHECK(after.at("refcount-bits") == 4);
  const auto expected = qemu_reads_snapshot(old, "first");
  for (const std::string& it : bitmaps) qemu_img({"bitmap", "--remove"}, disk, {it});
  qemu_img({"snapshot", "-q", "-a", "first"}, disk);
  CHECK((qemu_reads(disk) == expected));
  CHECK(qemu_check(disk).ok());
}
