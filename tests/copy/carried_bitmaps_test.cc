// Persistent bitmaps go along with a copy.
#include "copy/carried_bitmaps.h"

#include <algorithm>

#include "copy/source/local_source.h"
#include "storage/file_storage.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/support/dirty_bits.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;
using namespace copy;
using support::dirty_sectors;
using support::Random;
using support::run_ok;
using support::TempDirectory;
using test::from_to;

namespace {

// With a verification, the progress starts again.
class Quiet final : public Progress {
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
};

Result<CopySummary> run_copy(const CopyOptions& options) {
  Quiet progress;
  const Cancel cancel;
  return copy::copy(options, progress, cancel);
}

constexpr uint64_t kSector = 512;
using Sectors = std::vector<bool>;

void write_at(const std::string& image, uint64_t at, uint64_t length, unsigned value) {
  run_ok({"qemu-io", "-f", "qcow2", "-c",
          "write -q -P " + std::to_string(value) + " " + std::to_string(at) + " " +
              std::to_string(length),
          image});
}

void add_bitmap(const std::string& image, const std::string& name, uint64_t granularity) {
  run_ok({"qemu-img", "bitmap", "--add", "-g", std::to_string(granularity), image, name});
}

// A random image with data and bitmaps, some of them disabled.
uint64_t make_source(const std::string& image, Random& random) {
  const uint64_t size = random.between(2000, 40000) * kSector;
  const uint64_t bits = random.between(9, 21);
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
          "cluster_size=" + std::to_string(1u << bits), image, std::to_string(size)});
  const uint64_t count = random.between(1, 4);
  for (uint64_t i = 0; i < count; ++i) {
    const std::string name = "bitmap " + std::to_string(i);
    add_bitmap(image, name, uint64_t{512} << random.below(14));
    const uint64_t writes = random.below(4);
    for (uint64_t w = 0; w < writes; ++w) {
      const uint64_t at = random.below(size / kSector) * kSector;
      write_at(image, at, std::min(random.between(1, 900) * kSector, size - at),
               static_cast<unsigned>(w + 1));
    }
    if (random.chance(30)) run_ok({"qemu-img", "bitmap", "--disable", image, name});
  }
  if (random.chance(30)) write_at(image, 0, size, 9);
  return size;
}

void check_image(const std::string& image) {
  const auto check = support::run({"qemu-img", "check", "-f", "qcow2", image});
  INFO(check.describe());
  REQUIRE(check.exit_code == 0);
}

CopyOptions with_bitmaps(const std::string& source, const std::string& destination) {
  CopyOptions options = from_to(source, destination);
  options.bitmaps = BitmapChoice::kAll;
  options.verify = true;
  return options;
}

uint64_t in_sectors(const Sectors& dirty, uint64_t begin, uint64_t end) {
  return static_cast<uint64_t>(std::count(dirty.begin() + static_cast<ptrdiff_t>(begin / kSector),
                                          dirty.begin() + static_cast<ptrdiff_t>(end / kSector),
                                          true));
}

}  // namespace

TEST_CASE("all bitmaps of an image go along, as with qemu-img", "[bitmaps]") {
  const uint64_t images = support::iterations(10);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    CAPTURE(seed);
    Random random(seed);
    const TempDirectory folder;
    make_source(folder / "src", random);
    run_ok({"qemu-img", "convert", "-O", "qcow2", "--bitmaps", folder / "src", folder / "qemu"});
    std::vector<std::byte> first;
    CopyOptions options = with_bitmaps(folder / "src", folder / "out");
    options.image.cluster_bits = static_cast<unsigned>(random.between(9, 21));
    options.image.refcount_order = static_cast<unsigned>(random.below(7));
    if (random.chance(50)) options.compression.type = qcow2::CompressionType::kZstd;
    options.overwrite = true;
    CAPTURE(*options.image.cluster_bits, *options.image.refcount_order);
    options.dry_run = true;
    const auto dry = run_copy(options);
    REQUIRE_OK(dry);
    options.dry_run = false;
    for (const unsigned threads : {1u, 4u}) {
      options.threads = threads;
      const auto summary = run_copy(options);
      REQUIRE_OK(summary);
      REQUIRE(summary->destination->length == *dry->predicted);
      const auto bytes = support::read_file(folder / "out");
      if (threads == 1) first = bytes;
      REQUIRE((bytes == first));
    }
    check_image(folder / "out");
    run_ok({"qemu-img", "compare", folder / "src", folder / "out"});
    const auto names = support::bitmap_names(folder / "qemu");
    REQUIRE(support::bitmap_names(folder / "out") == names);
    for (const std::string& name : names) {
      CAPTURE(name);
      REQUIRE((dirty_sectors(folder / "out", name) == dirty_sectors(folder / "qemu", name)));
      REQUIRE(support::has_bitmap_flag(folder / "out", name, "auto") ==
              support::has_bitmap_flag(folder / "qemu", name, "auto"));
      REQUIRE_FALSE(support::has_bitmap_flag(folder / "out", name, "in-use"));
    }
    // QEMU records in them.
    write_at(folder / "out", 0, kSector, 3);
    check_image(folder / "out");
  }
}

TEST_CASE("a table of a bitmap may be longer than a range of refcounts", "[bitmaps]") {
  const TempDirectory folder;
  // 512 bytes a bit: 2 MiB of bits, 4096 clusters of 512 bytes, a table of 64 clusters; with
  // refcounts of 64 bits, a range has 64 clusters.
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "src", "8G"});
  add_bitmap(folder / "src", "long", 512);
  for (const char* const at : {"0", "4000M", "8191M"})
    run_ok({"qemu-io", "-f", "qcow2", "-c", std::string("write -q ") + at + " 1M", folder / "src"});
  CopyOptions options = with_bitmaps(folder / "src", folder / "out");
  options.image.cluster_bits = 9;
  options.image.refcount_order = 6;
  REQUIRE_OK(run_copy(options));
  check_image(folder / "out");
  CHECK((dirty_sectors(folder / "out", "long") == dirty_sectors(folder / "src", "long")));
}

TEST_CASE("what is left out as unused is set in enabled bitmaps", "[bitmaps]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "src", "16M"});
  write_at(folder / "src", 0, 8 << 20, 5);
  for (const char* const name : {"on", "fine", "off"})
    add_bitmap(folder / "src", name, name[0] == 'f' ? 512 : 65536);
  run_ok({"qemu-img", "bitmap", "--disable", folder / "src", "off"});
  write_at(folder / "src", 64 << 10, 64 << 10, 6);
  CopyOptions options = with_bitmaps(folder / "src", folder / "out");
  guest::Ranges::Builder unused;
  unused.add(1 << 20, (2 << 20) + 4096);
  unused.add(6 << 20, 12 << 20);
  options.unused = std::make_shared<const guest::Ranges>(unused.take());
  REQUIRE_OK(run_copy(options));
  check_image(folder / "out");
  const Sectors on = dirty_sectors(folder / "out", "on");
  CHECK(in_sectors(on, 0, 16 << 20) == in_sectors(on, 64 << 10, 128 << 10) +
                                           in_sectors(on, 1 << 20, (2 << 20) + 65536) +
                                           in_sectors(on, 6 << 20, 8 << 20));
  CHECK(in_sectors(on, 64 << 10, 128 << 10) == 128);
  CHECK(in_sectors(on, 1 << 20, (2 << 20) + 65536) == 2048 + 128);
  CHECK(in_sectors(on, 6 << 20, 8 << 20) == 4096);
  const Sectors fine = dirty_sectors(folder / "out", "fine");
  CHECK(in_sectors(fine, 1 << 20, (2 << 20) + 65536) == 2048 + 8);
  // What was never stored is not set, and a disabled bitmap does not change.
  CHECK(in_sectors(fine, 8 << 20, 16 << 20) == 0);
  CHECK((dirty_sectors(folder / "out", "off") == dirty_sectors(folder / "src", "off")));
}

TEST_CASE("what an overlay changes is set in the bitmaps of its disk", "[bitmaps]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "src", "16M"});
  write_at(folder / "src", 0, 8 << 20, 5);
  add_bitmap(folder / "src", "on", 65536);
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", folder / "src", "-F", "qcow2",
          folder / "overlay"});
  run_ok({"qemu-io", "-f", "qcow2", "-d", "unmap", "-c", "write -q -P 7 1M 64k", "-c",
          "write -q -z -u 4M 8M", "-c", "write -q -P 8 14M 64k", folder / "overlay"});
  const auto disk = qcow2::Chain::open(folder / "src", {});
  REQUIRE_OK(disk);
  CopyOptions options = with_bitmaps(folder / "overlay", folder / "out");
  options.original = &*disk;
  REQUIRE_OK(run_copy(options));
  check_image(folder / "out");
  const Sectors on = dirty_sectors(folder / "out", "on");
  CHECK(in_sectors(on, 1 << 20, (1 << 20) + 65536) == 128);
  CHECK(in_sectors(on, 4 << 20, 8 << 20) == 8192);
  CHECK(in_sectors(on, 14 << 20, (14 << 20) + 65536) == 128);
  CHECK(in_sectors(on, 0, 16 << 20) == 128 + 8192 + 128);
  // Without the overlay, the same options change nothing.
  options.source = folder / "src";
  options.overwrite = true;
  REQUIRE_OK(run_copy(options));
  CHECK(in_sectors(dirty_sectors(folder / "out", "on"), 0, 16 << 20) == 0);
}

TEST_CASE("bitmaps that cannot go along are refused, or left out and told", "[bitmaps]") {
  const TempDirectory folder;
  const std::string src = folder / "src";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", src, "16M"});
  add_bitmap(src, "broken", 65536);
  add_bitmap(src, "good", 65536);
  run_ok({"qemu-img", "snapshot", "-c", "then", src});
  {
    auto file = FileStorage::open_writable(src);
    REQUIRE_OK(file);
    const auto header = qcow2::Header::read(**file);
    REQUIRE_OK(header);
    auto directory = qcow2::read_bitmap_directory(**file, *header);
    REQUIRE_OK(directory);
    directory->bitmaps.pop_back();
    REQUIRE_OK(qcow2::mark_bitmaps_in_use(**file, *directory));
  }
  CopyOptions options = with_bitmaps(src, folder / "out");
  options.overwrite = true;
  REQUIRE_FAILS_WITH(run_copy(options), "bitmap 'broken' is not copied: it is in use");
  options.bitmaps = BitmapChoice::kUnbroken;
  const auto summary = run_copy(options);
  REQUIRE_OK(summary);
  CHECK(summary->bitmaps_left_out.size() == 1);
  CHECK(support::bitmap_names(folder / "out") == std::vector<std::string>{"good"});
  const auto refused = [&](CopyOptions how, const std::string& reason) {
    REQUIRE_FAILS_WITH(run_copy(how), reason);
    how.bitmaps = BitmapChoice::kValid;
    const auto without = run_copy(how);
    REQUIRE_OK(without);
    CHECK(without->bitmaps == 0);
    REQUIRE(without->bitmaps_left_out.size() == 1);
    CHECK_THAT(without->bitmaps_left_out.front(), Catch::Contains(reason));
  };
  CopyOptions raw = options;
  raw.format = qcow2::Format::kRaw;
  refused(raw, "only a new QCOW2 image");
  CopyOptions old = options;
  old.image.version = 2;
  refused(old, "version 2");
  CopyOptions then = options;
  then.snapshot = "then";
  refused(then, "not those of a snapshot");
  CopyOptions salvage = options;
  salvage.salvage = true;
  salvage.verify = false;
  refused(salvage, "salvage");
  CopyOptions from_raw = options;
  test::make_lived_in_raw(folder / "raw", 1, 1 << 20);
  from_raw.source = folder / "raw";
  REQUIRE_FAILS_WITH(run_copy(from_raw), "is not a QCOW2 image");
  options.bitmaps = BitmapChoice::kNone;
  REQUIRE_OK(run_copy(options));
  CHECK(support::bitmap_names(folder / "out").empty());
}

TEST_CASE("a bitmap that differs is found by the verification", "[bitmaps]") {
  const TempDirectory folder;
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder / "src", "16M"});
  add_bitmap(folder / "src", "on", 65536);
  write_at(folder / "src", 1 << 20, 64 << 10, 6);
  const CopyOptions options = with_bitmaps(folder / "src", folder / "out");
  REQUIRE_OK(run_copy(options));
  const Cancel cancel;
  const Stop stop(cancel);
  const auto source = CopySource::open(options, cancel, stop);
  REQUIRE_OK(source);
  const auto carried = CarriedBitmaps::open(options, *source, true, 3);
  REQUIRE_OK(carried);
  const auto verify = [&] {
    const auto copy = LocalSource::open(folder / "out", {});
    REQUIRE_OK(copy);
    return (*carried)->verify(**copy);
  };
  REQUIRE_OK(verify());
  SECTION("another bit") {
    write_at(folder / "out", 2 << 20, 512, 6);
  }
  SECTION("no bit") {
    run_ok({"qemu-img", "bitmap", "--clear", folder / "out", "on"});
  }
  SECTION("disabled") {
    run_ok({"qemu-img", "bitmap", "--disable", folder / "out", "on"});
  }
  SECTION("removed") {
    run_ok({"qemu-img", "bitmap", "--remove", folder / "out", "on"});
  }
  REQUIRE_FAILS_WITH(verify(), "bitmap 'on' differs");
}
