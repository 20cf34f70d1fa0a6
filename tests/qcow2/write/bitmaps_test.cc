// Persistent bitmaps stay true while the writer works.
#include <algorithm>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/bitmaps/bitmap_reader.h"
#include "qcow2/bitmaps/changed_ranges.h"
#include "qcow2/format/bitmap_directory.h"
#include "qcow2/read/chain.h"
#include "qcow2/write/chain_writer.h"
#include "qcow2/write/flatten.h"
#include "qcow2/write/snapshot_editor.h"
#include "storage/file_storage.h"
#include "tests/catch_text.h"
#include "tests/qcow2/write/crash_storage.h"
#include "tests/support/dirty_bits.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;
using support::Random;
using support::run_ok;

namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kSector = 512;

struct TestBitmap {
  std::string name;
  uint64_t granularity;
  bool enabled;
};

struct TestImage {
  std::string path;
  uint64_t size = 0;
  std::vector<TestBitmap> bitmaps;
  std::vector<std::shared_ptr<Layer>> backing;
};

Bytes read_disk(const Disk& disk) {
  Bytes bytes(disk.size());
  REQUIRE_OK(disk.read(GuestOffset(0), bytes));
  return bytes;
}

Bytes content_of(const std::string& path) {
  const auto chain = Chain::open(path, {});
  REQUIRE_OK(chain);
  return read_disk(chain->disk());
}

void let_qemu_write(const TestImage& image, Random& random, unsigned requests) {
  std::vector<std::string> command{"qemu-io", "-f", "qcow2", "-d", "unmap"};
  for (unsigned i = 0; i < requests; ++i) {
    const uint64_t at = random.below(image.size / kSector) * kSector;
    const uint64_t length = std::min<uint64_t>(random.between(1, 300) * kSector, image.size - at);
    command.emplace_back("-c");
    command.push_back((random.chance(20) ? "write -q -z -u " : "write -q -P 7 ") +
                      std::to_string(at) + " " + std::to_string(length));
  }
  command.push_back(image.path);
  run_ok(command);
}

// An image with bitmaps of QEMU, some of which have bits set and some of which are disabled.
TestImage make_image(const support::TempDirectory& folder, Random& random, bool lazy) {
  TestImage image;
  image.path = folder / "disk";
  const unsigned bits = static_cast<unsigned>(random.between(9, 17));
  image.size = random.between(1000, 9000) * kSector;
  std::string options = "cluster_size=" + std::to_string(1u << bits) +
                        ",refcount_bits=" + std::to_string(1u << random.between(3, 6));
  if (bits >= 14 && random.chance(50)) options += ",extended_l2=on";
  if (lazy) options += ",lazy_refcounts=on";
  std::vector<std::string> command{"qemu-img", "create", "-q", "-f", "qcow2", "-o", options};
  if (random.chance(50)) {
    Bytes base(image.size);
    random.fill(base);
    support::write_file(folder / "base", base);
    command.insert(command.end(), {"-b", folder / "base", "-F", "raw"});
  }
  command.insert(command.end(), {image.path, std::to_string(image.size)});
  run_ok(command);
  if (random.chance(70)) let_qemu_write(image, random, 6);
  const uint64_t count = random.between(1, 3);
  for (uint64_t i = 0; i < count; ++i) {
    const TestBitmap bitmap{"bitmap " + std::to_string(i), uint64_t{512} << random.below(12),
                            random.chance(70)};
    run_ok({"qemu-img", "bitmap", "--add", "-g", std::to_string(bitmap.granularity), image.path,
            bitmap.name});
    image.bitmaps.push_back(bitmap);
    if (random.chance(50)) let_qemu_write(image, random, 3);
    if (!bitmap.enabled) run_ok({"qemu-img", "bitmap", "--disable", image.path, bitmap.name});
  }
  return image;
}

std::unique_ptr<DiskWriter> open_to_write(const std::string& path,
                                          std::shared_ptr<Storage> storage) {
  const auto chain = Chain::open(path, {});
  REQUIRE_OK(chain);
  auto layers = chain->disk().layers();
  layers.erase(layers.begin());
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  auto writer = DiskWriter::open(std::move(storage), *header, nullptr, std::move(layers),
                                 std::make_shared<TableCache>(1 << 20), {});
  REQUIRE_OK(writer);
  return std::move(*writer);
}

// Sends random requests.  Marks the sectors that they concern in `touched`.
void work(DiskWriter& writer, std::vector<bool>& touched, Random& random, unsigned requests) {
  Bytes buffer;
  for (unsigned i = 0; i < requests; ++i) {
    const uint64_t at = random.below(writer.size() / kSector) * kSector;
    const uint64_t length =
        std::min<uint64_t>(random.between(1, 300) * kSector, writer.size() - at);
    std::fill_n(touched.begin() + static_cast<ptrdiff_t>(at / kSector), length / kSector, true);
    switch (random.below(4)) {
      case 0:
        REQUIRE_OK(writer.zero(GuestOffset(at), length, random.chance(50)));
        break;
      case 1:
        REQUIRE_OK(writer.discard(GuestOffset(at), length));
        break;
      default:
        buffer.resize(length);
        random.fill(buffer);
        REQUIRE_OK(writer.write(GuestOffset(at), buffer));
    }
  }
}

// Returns the sectors whose granule has a sector in `sectors`.
std::vector<bool> by_granule(const std::vector<bool>& sectors, uint64_t granularity) {
  std::vector<bool> result(sectors.size());
  const uint64_t unit = granularity / kSector;
  for (uint64_t i = 0; i < sectors.size(); ++i)
    if (sectors[i])
      std::fill(result.begin() + static_cast<ptrdiff_t>(i / unit * unit),
                result.begin() + static_cast<ptrdiff_t>(
                                     std::min<uint64_t>(i / unit * unit + unit, sectors.size())),
                true);
  return result;
}

std::vector<bool> difference(const Bytes& a, const Bytes& b) {
  std::vector<bool> sectors(a.size() / kSector);
  for (uint64_t i = 0; i < sectors.size(); ++i)
    sectors[i] = !std::equal(a.begin() + static_cast<ptrdiff_t>(i * kSector),
                             a.begin() + static_cast<ptrdiff_t>((i + 1) * kSector),
                             b.begin() + static_cast<ptrdiff_t>(i * kSector));
  return sectors;
}

bool covers(const std::vector<bool>& all, const std::vector<bool>& part) {
  for (uint64_t i = 0; i < part.size(); ++i)
    if (part[i] && !all[i]) return false;
  return true;
}

void check_image(const std::string& path) {
  const auto check = support::run({"qemu-img", "check", "-f", "qcow2", path});
  INFO(check.describe());
  REQUIRE(check.exit_code == 0);
}

// Reads a bitmap by our own reader: `image` may have no name.
struct Seen {
  bool in_use = true;
  std::vector<bool> sectors;
};
Seen bits_in(const Storage& image, const std::string& name, uint64_t size) {
  const auto header = Header::read(image);
  REQUIRE_OK(header);
  const auto directory = read_bitmap_directory(image, *header);
  REQUIRE_OK(directory);
  for (const Bitmap& it : directory->bitmaps) {
    if (it.name != name) continue;
    Seen seen;
    seen.in_use = it.in_use();
    Bytes bits(divide_up(Bitmap::bits_for(size, it.granularity_bits), 8));
    REQUIRE_OK(BitmapReader(image, header->geometry(), it).read(0, bits));
    for (uint64_t i = 0; i < size / kSector; ++i) {
      const uint64_t bit = i * kSector >> it.granularity_bits;
      seen.sectors.push_back(((std::to_integer<unsigned>(bits[bit / 8]) >> (bit % 8)) & 1) != 0);
    }
    return seen;
  }
  FAIL("no bitmap " << name);
  return {};
}

Header header_of(const std::string& path) {
  const auto file = FileStorage::open_readonly(path);
  REQUIRE_OK(file);
  auto header = Header::read(**file);
  REQUIRE_OK(header);
  return std::move(*header);
}

BitmapDirectory directory_of(const std::string& path) {
  const auto file = FileStorage::open_readonly(path);
  REQUIRE_OK(file);
  auto directory = read_bitmap_directory(**file, header_of(path));
  REQUIRE_OK(directory);
  return std::move(*directory);
}

void put(const std::string& path, uint64_t at, const Bytes& bytes) {
  auto file = FileStorage::open_writable(path);
  REQUIRE_OK(file);
  REQUIRE_OK((*file)->write(HostOffset(at), bytes));
}

Bytes be32(uint32_t value) {
  Bytes bytes(4);
  store_be32(bytes.data(), value);
  return bytes;
}

void write_once(const std::string& path) {
  OpenOptions options;
  options.writable = true;
  const auto chain = Chain::open(path, options);
  REQUIRE_OK(chain);
  const auto writer = qcow2::open_writer(*chain, {});
  REQUIRE_OK(writer);
  REQUIRE_OK((*writer)->write(GuestOffset(1 << 20), Bytes(4096, std::byte{9})));
  REQUIRE_OK((*writer)->close());
}

std::string image_of(const support::TempDirectory& folder, const std::string& size = "8M") {
  const std::string image = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, size});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 4M", image});
  run_ok({"qemu-img", "bitmap", "--add", image, "one"});
  return image;
}

}  // namespace

TEST_CASE("bitmaps get the bits of all changes of a writer, and no others", "[bitmaps]") {
  const uint64_t images = support::iterations(12);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    CAPTURE(seed);
    Random random(seed);
    const support::TempDirectory folder;
    const TestImage image = make_image(folder, random, random.chance(25));
    for (int round = 0; round < 2; ++round) {
      const Bytes before = content_of(image.path);
      std::vector<std::vector<bool>> old;
      for (const TestBitmap& it : image.bitmaps)
        old.push_back(support::dirty_sectors(image.path, it.name));
      std::vector<bool> touched(image.size / kSector);
      auto file = FileStorage::open_writable(image.path);
      REQUIRE_OK(file);
      const auto writer = open_to_write(image.path, *file);
      work(*writer, touched, random, 12);
      REQUIRE_OK(writer->flush());
      work(*writer, touched, random, 3);
      REQUIRE_OK(writer->close());
      check_image(image.path);
      const auto changed = difference(before, content_of(image.path));
      for (size_t k = 0; k < image.bitmaps.size(); ++k) {
        const TestBitmap& it = image.bitmaps[k];
        CAPTURE(round, it.name, it.granularity, it.enabled);
        const auto now = support::dirty_sectors(image.path, it.name);
        REQUIRE(support::has_bitmap_flag(image.path, it.name, "auto") == it.enabled);
        REQUIRE_FALSE(support::has_bitmap_flag(image.path, it.name, "in-use"));
        if (!it.enabled) {
          REQUIRE((now == old[k]));
          continue;
        }
        REQUIRE(covers(now, old[k]));
        REQUIRE(covers(now, changed));
        auto allowed = by_granule(touched, it.granularity);
        for (uint64_t s = 0; s < allowed.size(); ++s) allowed[s] = allowed[s] || old[k][s];
        REQUIRE(covers(allowed, now));
      }
    }
  }
}

TEST_CASE("after a loss of power a bitmap is in use, or covers all changes", "[bitmaps]") {
  const uint64_t images = support::iterations(12);
  uint64_t in_use = 0;
  uint64_t valid = 0;
  for (uint64_t i = 0; support::more_iterations(i, images, in_use > 0 && valid > 0); ++i) {
    const uint64_t seed = support::base_seed() + i;
    CAPTURE(seed);
    Random random(seed);
    const support::TempDirectory folder;
    const TestImage image = make_image(folder, random, random.chance(25));
    const Bytes before = content_of(image.path);
    const auto storage = std::make_shared<test::CrashStorage>(support::read_file(image.path));
    std::vector<Bytes> crashes;
    storage->crash_at_flushes(crashes, seed);
    std::mt19937_64 crash_random(seed);
    const auto writer = open_to_write(image.path, storage);
    std::vector<bool> touched(image.size / kSector);
    for (int step = 0; step < 4; ++step) {
      crashes.push_back(storage->after_crash(crash_random));
      work(*writer, touched, random, 3);
      crashes.push_back(storage->after_crash(crash_random));
      if (random.chance(30)) REQUIRE_OK(writer->flush());
    }
    REQUIRE_OK(writer->close());
    crashes.push_back(storage->after_crash(crash_random));
    for (const Bytes& crash : crashes) {
      support::write_file(image.path, crash);
      const auto file = FileStorage::open_readonly(image.path);
      REQUIRE_OK(file);
      const auto changed = difference(before, content_of(image.path));
      for (const TestBitmap& it : image.bitmaps) {
        const Seen seen = bits_in(**file, it.name, image.size);
        if (!it.enabled) REQUIRE_FALSE(seen.in_use);
        if (!it.enabled) continue;
        ++(seen.in_use ? in_use : valid);
        REQUIRE((seen.in_use || covers(seen.sectors, changed)));
      }
      if (!random.chance(20)) continue;
      // The next writer repairs lazy refcounts; nothing but leaks is left, and bitmaps in use stay.
      auto again = FileStorage::open_writable(image.path);
      REQUIRE_OK(again);
      REQUIRE_OK(open_to_write(image.path, *again)->close());
      const auto check = support::run({"qemu-img", "check", "-f", "qcow2", image.path});
      INFO(check.describe());
      REQUIRE((check.exit_code == 0 || check.exit_code == 3));
    }
  }
  CHECK(in_use > 0);
  CHECK(valid > 0);
}

TEST_CASE("a writer that changes nothing leaves bitmaps alone", "[bitmaps]") {
  const support::TempDirectory folder;
  const std::string image = image_of(folder);
  const Bytes before = support::read_file(image);
  auto file = FileStorage::open_writable(image);
  REQUIRE_OK(file);
  REQUIRE_OK(open_to_write(image, *file)->close());
  CHECK((support::read_file(image) == before));
}

TEST_CASE("what already reads as zeros sets no bit", "[bitmaps]") {
  const support::TempDirectory folder;
  const std::string image = image_of(folder);
  auto file = FileStorage::open_writable(image);
  REQUIRE_OK(file);
  const auto writer = open_to_write(image, *file);
  REQUIRE_OK(writer->discard(GuestOffset(4 << 20), 4 << 20));
  REQUIRE_OK(writer->zero(GuestOffset(5 << 20), 1 << 20, false));
  REQUIRE_OK(writer->discard(GuestOffset(1 << 20), 1 << 20));
  REQUIRE_OK(writer->discard(GuestOffset(1 << 20), 1 << 20));
  REQUIRE_OK(writer->close());
  const auto dirty = support::dirty_sectors(image, "one");
  for (uint64_t i = 0; i < dirty.size(); ++i) REQUIRE(dirty[i] == (i >= 2048 && i < 4096));
}

TEST_CASE("a bitmap that fails to be stored stays in use", "[bitmaps]") {
  const support::TempDirectory folder;
  const std::string image = image_of(folder);
  const auto storage = std::make_shared<test::CrashStorage>(support::read_file(image));
  const auto writer = open_to_write(image, storage);
  REQUIRE_OK(writer->write(GuestOffset(0), Bytes(4096, std::byte{3})));
  REQUIRE_OK(writer->flush());
  storage->fail_after(1);
  REQUIRE_FALSE(writer->close().has_value());
  std::mt19937_64 random(1);
  support::write_file(image, storage->after_crash(random));
  CHECK(support::has_bitmap_flag(image, "one", "in-use"));
}

TEST_CASE("bitmaps with unknown data are used only if they allow it", "[bitmaps]") {
  const support::TempDirectory folder;
  const std::string image = image_of(folder);
  // The entry is made longer by 8 bytes of extra data, which move the name.
  const BitmapDirectory old = directory_of(image);
  const bool compatible = GENERATE(true, false);
  const uint64_t entry = old.bitmaps.front().entry.value();
  put(image, entry + bitmap_field::kFlags,
      be32(Bitmap::kAuto | (compatible ? Bitmap::kExtraCompatible : 0)));
  put(image, entry + bitmap_field::kExtraBytes, be32(8));
  const Bytes extra(8, std::byte{0x55});
  put(image, entry + bitmap_field::kName, extra);
  Bytes name(8);
  std::copy_n(reinterpret_cast<const std::byte*>("one"), 3, name.begin());
  put(image, entry + bitmap_field::kName + 8, name);
  Bytes size(8);
  store_be64(size.data(), old.size + 8);
  put(image, old.pointer.value() - 8, size);
  write_once(image);
  const BitmapDirectory now = directory_of(image);
  REQUIRE(now.bitmaps.size() == 1);
  const Bitmap& bitmap = now.bitmaps.front();
  CHECK(bitmap.name == "one");
  CHECK(bitmap.extra_bytes == 8);
  CHECK(bitmap.in_use() == !compatible);
  const Bytes file = support::read_file(image);
  CHECK(std::equal(
      extra.begin(), extra.end(),
      file.begin() + static_cast<ptrdiff_t>(bitmap.entry.value()) + bitmap_field::kName));
  if (compatible) CHECK(bits_in(**FileStorage::open_readonly(image), "one", 8 << 20).sectors[2048]);
}

TEST_CASE("a damaged directory of bitmaps is no longer valid once the disk is written",
          "[bitmaps]") {
  const support::TempDirectory folder;
  const std::string image = image_of(folder);
  const BitmapDirectory old = directory_of(image);
  const uint64_t entry = old.bitmaps.front().entry.value();
  SECTION("unknown flags") {
    put(image, entry + bitmap_field::kFlags, be32(Bitmap::kAuto | 0x100));
  }
  SECTION("a table that is the L1 table, too") {
    Bytes at(8);
    store_be64(at.data(), header_of(image).l1_table.value());
    put(image, entry + bitmap_field::kTable, at);
  }
  SECTION("a table without a refcount") {
    Bytes at(8);
    store_be64(at.data(), uint64_t{60} << 20);
    put(image, entry + bitmap_field::kTable, at);
  }
  write_once(image);
  CHECK((header_of(image).autoclear_features & autoclear::kBitmaps) == 0);
  CHECK(content_of(image)[1 << 20] == std::byte{9});
}

TEST_CASE("guest data never overwrites a table of a bitmap", "[bitmaps][damaged-writes]") {
  const support::TempDirectory folder;
  const std::string image = image_of(folder);
  const Bitmap bitmap = directory_of(image).bitmaps.front();
  const HostOffset target = GENERATE(false, true) ? directory_of(image).at : bitmap.table;
  const Bytes file = support::read_file(image);
  const uint64_t l2 = load_be64(&file[header_of(image).l1_table.value()]) & kEntryOffsetMask;
  Bytes word(8);
  store_be64(word.data(), target.value() | kEntryCopied);
  put(image, l2, word);
  auto storage = FileStorage::open_writable(image);
  REQUIRE_OK(storage);
  const auto writer = open_to_write(image, *storage);
  REQUIRE_FALSE(writer->write(GuestOffset(0), Bytes(4096, std::byte{3})).has_value());
}

TEST_CASE("flatten keeps bitmaps as they are", "[bitmaps]") {
  const support::TempDirectory folder;
  support::write_file(folder / "base", Bytes(4 << 20, std::byte{5}));
  const std::string image = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", folder / "base", "-F", "raw", image});
  run_ok({"qemu-img", "bitmap", "--add", image, "one"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 1M 64k", image});
  const auto before = support::dirty_sectors(image, "one");
  class Quiet final : public Progress {
    void update(uint64_t /*done*/, uint64_t /*total*/) override {}
  } progress;
  const Cancel cancel;
  REQUIRE_OK(flatten(image, std::nullopt, {}, progress, cancel));
  check_image(image);
  CHECK((support::dirty_sectors(image, "one") == before));
  CHECK(support::has_bitmap_flag(image, "one", "auto"));
}

TEST_CASE("snapshots keep bitmaps, and going back to one sets all bits", "[bitmaps]") {
  const support::TempDirectory folder;
  const std::string image = image_of(folder);
  run_ok({"qemu-img", "bitmap", "--add", "--disable", image, "old"});
  const auto edit = [&](const auto& change) {
    {
      OpenOptions options;
      options.writable = true;
      const auto chain = Chain::open(image, options);
      REQUIRE_OK(chain);
      const auto editor = SnapshotEditor::open(*chain);
      REQUIRE_OK(editor);
      change(**editor);
      REQUIRE_OK((*editor)->close());
    }
    check_image(image);
  };
  const bool resized = GENERATE(false, true);
  edit([](SnapshotEditor& it) { REQUIRE_OK(it.create("s", {1, 2})); });
  CHECK_FALSE(support::dirty_sectors(image, "one").front());
  if (resized) run_ok({"qemu-img", "resize", "-q", "-f", "qcow2", image, "4G"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 6 2M 64k", image});
  edit([](SnapshotEditor& it) { REQUIRE_OK(it.create("later", {3, 4})); });
  edit([](SnapshotEditor& it) { REQUIRE_OK(it.apply("s")); });
  auto one = support::dirty_sectors(image, "one");
  CHECK(one.size() == (8 << 20) / kSector);
  CHECK(std::all_of(one.begin(), one.end(), [](bool it) { return it; }));
  const auto old = support::dirty_sectors(image, "old");
  CHECK(std::none_of(old.begin(), old.end(), [](bool it) { return it; }));
  edit([](SnapshotEditor& it) { REQUIRE_OK(it.apply("later")); });
  one = support::dirty_sectors(image, "one");
  CHECK(one.size() == (resized ? uint64_t{4} << 30 : 8 << 20) / kSector);
  CHECK(std::all_of(one.begin(), one.end(), [](bool it) { return it; }));
  edit([](SnapshotEditor& it) { REQUIRE_OK(it.remove("s")); });
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 8 0 64k", image});
  CHECK(support::bitmap_names(image) == std::vector<std::string>{"one", "old"});
}

TEST_CASE("a loss of power while going back to a snapshot harms no bitmap", "[bitmaps]") {
  const support::TempDirectory folder;
  const std::string image = image_of(folder);
  run_ok({"qemu-img", "snapshot", "-c", "s", image});
  run_ok({"qemu-img", "bitmap", "--clear", image, "one"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 6 2M 640k", image});
  run_ok({"qemu-img", "bitmap", "--clear", image, "one"});
  const Bytes before = content_of(image);
  const auto storage = std::make_shared<test::CrashStorage>(support::read_file(image));
  std::vector<Bytes> crashes;
  storage->crash_at_flushes(crashes, support::base_seed());
  const auto editor = SnapshotEditor::open(storage);
  REQUIRE_OK(editor);
  REQUIRE_OK((*editor)->apply("s"));
  REQUIRE_OK((*editor)->close());
  unsigned applied = 0;
  for (const Bytes& crash : crashes) {
    support::write_file(image, crash);
    const auto changed = difference(before, content_of(image));
    const auto file = FileStorage::open_readonly(image);
    REQUIRE_OK(file);
    const Seen seen = bits_in(**file, "one", before.size());
    REQUIRE((seen.in_use || covers(seen.sectors, changed)));
    applied += std::count(changed.begin(), changed.end(), true) > 0 ? 1 : 0;
  }
  CHECK(applied > 0);
}

TEST_CASE("changed ranges are exact up to their memory limit, and a superset beyond", "[bitmaps]") {
  ChangedRanges exact(uint64_t{16} << 40, 16);
  CHECK(exact.unit() == 65536);
  CHECK(exact.empty());
  exact.add(GuestOffset((uint64_t{16} << 40) - 1), 100);
  CHECK_FALSE(exact.empty());
  Bytes bits(4096);
  exact.merge_into(bits, (uint64_t{16} << 24) - 4096 * 8, 16);
  CHECK(bits.back() == std::byte{0x80});
  CHECK(std::count(bits.begin(), bits.end(), std::byte{0}) == 4095);
  ChangedRanges coarse(uint64_t{64} << 40, 16);
  CHECK(coarse.unit() == uint64_t{256} << 10);
  coarse.add(GuestOffset(65536 * 5), 1);
  Bytes few(2);
  coarse.merge_into(few, 0, 16);
  CHECK(few.front() == std::byte{0xf0});
  CHECK(few.back() == std::byte{0});
}
