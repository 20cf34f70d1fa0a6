// What has changed on a disk, as QEMU's bitmaps tell it.

#include "copy/dirty_ranges.h"

#include "copy/local_source.h"
#include "copy/nbd_sink.h"
#include "copy/nbd_source.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/copy/memory_sink.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using copy::Cancel;
using copy::DirtyRanges;
using copy::NbdSink;
using copy::NbdSource;
using copy::NbdTarget;
using copy::Stop;
using qcow2::ExtentKind;
using qcow2::GuestOffset;
using support::run_ok;
using support::TempDirectory;

namespace {

constexpr size_t kDiskSize = (32 << 20) + 5 * 512;

// A disk with a bitmap "b" (of 64 KiB granules) in which what `writes` wrote is dirty.
void make_image(const std::string& path, const std::string& raw,
                const std::vector<std::string>& writes) {
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path});
  run_ok({"qemu-img", "bitmap", "--add", "-g", "64K", path, "b"});
  std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
  for (const std::string& write : writes) {
    command.emplace_back("-c");
    command.push_back(write);
  }
  command.push_back(path);
  if (!writes.empty()) run_ok(command);
}

NbdTarget server(const std::string& path) {
  return NbdTarget{"", {"qemu-nbd", "-r", "-t", "--shared=0", "-f", "qcow2", "-B", "b", path}};
}

using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;

qcow2::Result<Ranges> all_of(DirtyRanges& dirty) {
  Ranges ranges;
  while (true) {
    ASSIGN_OR_RETURN(const auto range, dirty.next());
    if (!range) return ranges;
    ranges.emplace_back(range->begin.value(), range->length);
  }
}

}  // namespace

TEST_CASE("a bitmap tells what was written", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 1, kDiskSize);
  const Cancel cancel;
  const Stop stop(cancel);
  std::vector<std::string> writes;
  Ranges expected;
  SECTION("nothing") {}
  SECTION("some") {
    writes = {"write -q 1M 64k", "write -q -z 1088k 64k", "write -q 5000000 1", "discard 8M 1M",
              "write -q 33556000 10"};
    expected = {{1 << 20, 128 << 10}, {4980736, 65536}, {8 << 20, 1 << 20}, {32 << 20, 5 * 512}};
  }
  SECTION("all") {
    writes = {"write -q 0 32M", "write -q 32M 2560"};
    expected = {{0, kDiskSize}};
  }
  make_image(folder / "disk", folder / "raw", writes);
  auto dirty = DirtyRanges::open(server(folder / "disk"), "b", {.retries = 0}, stop);
  REQUIRE_OK(dirty);
  CHECK((*dirty)->size() == kDiskSize);
  const auto ranges = all_of(**dirty);
  REQUIRE_OK(ranges);
  CHECK(*ranges == expected);
}

TEST_CASE("many small changes are all told, a part at a time", "[copy]") {
  // 65536 of them, in the eval plugin's way of giving extents: 4 KiB of each 8.
  const Cancel cancel;
  const Stop stop(cancel);
  const std::string extents_script =
      "extents=awk -v b=$4 -v n=$3 'BEGIN { for (a = b; a < b + n; a += 4096) "
      "print a, 4096, (a / 4096 % 2 ? \"zero\" : \"\") }'";
  auto source = NbdSource::open(NbdTarget{"",
                                          {"nbdkit", "eval", "get_size=echo 512M", "pread=exit 1",
                                           "can_extents=exit 0", extents_script}},
                                {}, stop);
  REQUIRE_OK(source);
  std::vector<qcow2::Extent> extents;
  uint64_t at = 0;
  size_t asked = 0;
  while (at < (*source)->size()) {
    extents.clear();
    REQUIRE_OK((*source)->map(GuestOffset(at), (*source)->size() - at, extents));
    REQUIRE_FALSE(extents.empty());
    CHECK(extents.size() < 20000);
    ++asked;
    for (const qcow2::Extent& extent : extents) {
      REQUIRE(extent.guest.value() == at);
      REQUIRE(extent.length == 4096);
      REQUIRE(extent.reads_as_zero() == (at / 4096 % 2 != 0));
      at += extent.length;
    }
  }
  CHECK(asked >= 8);
}

TEST_CASE("who is not told everything at once asks for less", "[copy]") {
  const Cancel cancel;
  const Stop stop(cancel);
  const auto map = [&](const std::string& limit, uint64_t& data) {
    auto source = NbdSource::open(
        NbdTarget{"",
                  {"nbdkit", "eval", "get_size=echo 2G", "pread=exit 1", "can_extents=exit 0",
                   "extents=test $3 -le " + limit +
                       " || { echo EINVAL too much >&2; exit 1; }; echo $4 $3 zero"}},
        {}, stop);
    REQUIRE_OK(source);
    std::vector<qcow2::Extent> extents;
    data = 0;
    uint64_t at = 0;
    while (at < (*source)->size()) {
      extents.clear();
      REQUIRE_OK((*source)->map(GuestOffset(at), (*source)->size() - at, extents));
      for (const qcow2::Extent& extent : extents) {
        REQUIRE(extent.guest.value() == at);
        at = extent.end().value();
        if (!extent.reads_as_zero()) data += extent.length;
      }
    }
  };
  uint64_t data = 0;
  map("100000000", data);
  CHECK(data == 0);
  map("1000", data);
  CHECK(data == uint64_t{2} << 30);
}

TEST_CASE("a bitmap that is not there is an error", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 2, kDiskSize);
  make_image(folder / "disk", folder / "raw", {});
  const Cancel cancel;
  const Stop stop(cancel);
  REQUIRE_FAILS_WITH(DirtyRanges::open(server(folder / "disk"), "c", {.retries = 0}, stop),
                     "no dirty bitmap 'c'");
  NbdSource::Options options;
  options.bitmap = "c";
  REQUIRE_FAILS_WITH(NbdSource::open(server(folder / "disk"), options, stop),
                     "no dirty bitmap 'c'");
  REQUIRE_FAILS_WITH(
      DirtyRanges::open(NbdTarget{"", {"nbdkit", "memory", "1M"}}, "b", {.retries = 0}, stop),
      "no dirty");
}

TEST_CASE("a map of changes is made of whole units", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 3, kDiskSize);
  make_image(
      folder / "disk", folder / "raw",
      {"write -q 1088k 4k", "write -q 1536k 64k", "write -q 1664k 64k", "write -q 33556000 10"});
  const Cancel cancel;
  const Stop stop(cancel);
  for (const uint64_t unit : {uint64_t{512}, uint64_t{64} << 10, uint64_t{1} << 20}) {
    NbdSource::Options options;
    options.bitmap = "b";
    options.dirty_unit = unit;
    auto source = NbdSource::open(server(folder / "disk"), options, stop);
    REQUIRE_OK(source);
    Ranges dirty;
    std::vector<qcow2::Extent> extents;
    uint64_t at = 0;
    while (at < kDiskSize) {
      extents.clear();
      REQUIRE_OK((*source)->map(GuestOffset(at), kDiskSize - at, extents));
      for (const qcow2::Extent& extent : extents) {
        REQUIRE(extent.guest.value() == at);
        at = extent.end().value();
        CHECK(extent.kind != ExtentKind::kZero);
        if (extent.kind == ExtentKind::kData)
          dirty.emplace_back(extent.guest.value(), extent.length);
      }
    }
    CHECK(at == kDiskSize);
    if (unit <= 64 << 10)
      CHECK(dirty == Ranges{{1088 << 10, 64 << 10},
                            {1536 << 10, 64 << 10},
                            {1664 << 10, 64 << 10},
                            {32 << 20, 5 * 512}});
    else
      CHECK(dirty == Ranges{{1 << 20, 1 << 20}, {32 << 20, 5 * 512}});
  }
}

TEST_CASE("a copy is brought up to date by what has changed", "[copy]") {
  const TempDirectory folder;
  test::make_lived_in_raw(folder / "raw", 4, kDiskSize);
  // Data over zeros, zeros over data, a part of a cluster, the end.
  make_image(folder / "disk", folder / "raw",
             {"write -q -P 1 1M 300k", "write -q -z 4M 2M", "write -q -P 0 9M 1M",
              "write -q -P 7 20000000 100", "write -q -P 3 33556000 10"});
  run_ok({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", folder / "disk", folder / "now"});
  const auto now = support::read_file(folder / "now");
  REQUIRE(now != support::read_file(folder / "raw"));
  const Cancel cancel;
  for (const uint64_t unit : {uint64_t{4096}, uint64_t{1} << 20}) {
    Stop stop(cancel);
    support::write_file(folder / "copy", support::read_file(folder / "raw"));
    NbdSource::Options reading;
    reading.bitmap = "b";
    reading.dirty_unit = unit;
    auto source = NbdSource::open(server(folder / "disk"), reading, stop);
    REQUIRE_OK(source);
    NbdSink::Options writing;
    writing.update = true;
    writing.granularity = unit;
    // All else is untouched: a server that is told to write there would show it.
    auto sink =
        NbdSink::open(NbdTarget{"", {"nbdkit", "file", folder / "copy"}}, writing, kDiskSize, stop);
    REQUIRE_OK(sink);
    test::Watcher watcher;
    REQUIRE_OK(test::run_into(**source, **sink, watcher, stop));
    CHECK(support::read_file(folder / "copy") == now);
  }
}
