#include "qcow2/read/qcow2_layer.h"

#include <zstd.h>

#include "tests/catch_text.h"
#include "tests/qcow2/tiny_image.h"

using namespace vc;

using namespace qcow2;
using test::TinyImage;

namespace {

Result<std::vector<Extent>> map_all(const Disk& disk) {
  std::vector<Extent> extents;
  RETURN_IF_ERROR(disk.map(GuestOffset(0), disk.size(), extents));
  return extents;
}

}  // namespace

TEST_CASE("standard clusters are mapped and read", "[layer]") {
  TinyImage image(12, 10 * 4096 + 100);
  image.set_l2(0, image.cluster(5) | kEntryCopied);
  image.set_l2(1, image.cluster(6));               // shared, and contiguous
  image.set_l2(2, kEntryZero);                     // plain zero
  image.set_l2(3, image.cluster(5) | kEntryZero);  // zero with an allocated cluster
  image.set_l2(10, image.cluster(7));              // the last cluster, incomplete
  image.fill(image.cluster(5), 4096, 0x55);
  image.fill(image.cluster(6), 4096, 0x66);
  image.fill(image.cluster(7), 4096, 0x77);
  const auto disk = image.disk();
  REQUIRE_OK(disk);

  const auto extents = map_all(*disk);
  REQUIRE_OK(extents);
  REQUIRE(extents->size() == 5);
  const auto is = [&](size_t i, uint64_t at, uint64_t length, ExtentKind kind) {
    const Extent& it = (*extents)[i];
    return it.guest == GuestOffset(at) && it.length == length && it.kind == kind && it.depth == 0;
  };
  CHECK(is(0, 0, 8192, ExtentKind::kData));
  CHECK((*extents)[0].host == HostOffset(image.cluster(5)));
  CHECK(is(1, 8192, 4096, ExtentKind::kZero));
  CHECK_FALSE((*extents)[1].preallocated);
  CHECK(is(2, 3 * 4096, 4096, ExtentKind::kZero));
  CHECK((*extents)[2].preallocated);
  CHECK((*extents)[2].host == HostOffset(image.cluster(5)));
  CHECK(is(3, 4 * 4096, 6 * 4096, ExtentKind::kUnallocated));
  CHECK(is(4, 10 * 4096, 100, ExtentKind::kData));

  CHECK(test::all_are(*test::read(*disk, 0, 4096), 0x55));
  CHECK(test::all_are(*test::read(*disk, 4096, 4096), 0x66));
  CHECK(test::all_are(*test::read(*disk, 2 * 4096, 8 * 4096), 0));
  CHECK(test::all_are(*test::read(*disk, 10 * 4096, 100), 0x77));
  // A read across kinds, at unaligned offsets.
  const auto mixed = test::read(*disk, 8191, 2);
  REQUIRE_OK(mixed);
  CHECK((*mixed)[0] == std::byte{0x66});
  CHECK((*mixed)[1] == std::byte{0});
}

TEST_CASE("a map that begins inside a cluster has the offset of its first byte", "[layer]") {
  TinyImage image(12, 4 * 4096);
  image.set_l2(1, image.cluster(5));
  const auto disk = image.disk();
  std::vector<Extent> extents;
  REQUIRE_OK(disk->map(GuestOffset(4096 + 10), 20, extents));
  REQUIRE(extents.size() == 1);
  CHECK(extents[0].guest == GuestOffset(4096 + 10));
  CHECK(extents[0].length == 20);
  CHECK(extents[0].host == HostOffset(image.cluster(5) + 10));
}

TEST_CASE("subclusters in every state", "[layer]") {
  TinyImage image(14, 4 << 14);
  image.set_incompatible(incompatible::kExtendedL2);
  // Subclusters of 512 bytes: 0 data, 1 zero, 2 nothing, 3 and 4 data.
  image.set_extended_l2(0, image.cluster(5), 0x0000'0002'0000'0019);
  image.set_extended_l2(1, 0, 0x8000'0000'0000'0000);  // no cluster, the last subcluster is zero
  image.fill(image.cluster(5), 1 << 14, 0x55);
  const auto disk = image.disk();
  REQUIRE_OK(disk);
  const auto extents = map_all(*disk);
  REQUIRE_OK(extents);
  REQUIRE(extents->size() == 8);
  const ExtentKind kinds[] = {ExtentKind::kData, ExtentKind::kZero,        ExtentKind::kUnallocated,
                              ExtentKind::kData, ExtentKind::kUnallocated, ExtentKind::kUnallocated,
                              ExtentKind::kZero, ExtentKind::kUnallocated};
  const uint64_t starts[] = {0, 512, 1024, 1536, 2560, 1 << 14, (2 << 14) - 512, 2 << 14};
  for (size_t i = 0; i < 8; ++i) {
    CAPTURE(i);
    CHECK((*extents)[i].kind == kinds[i]);
    CHECK((*extents)[i].guest == GuestOffset(starts[i]));
  }
  CHECK((*extents)[1].preallocated);
  // Unwritten parts of an allocated cluster have an offset, too.
  CHECK((*extents)[2].preallocated);
  CHECK((*extents)[2].host == HostOffset(image.cluster(5) + 1024));
  CHECK((*extents)[4].preallocated);
  CHECK_FALSE((*extents)[5].preallocated);
  CHECK_FALSE((*extents)[6].preallocated);
  CHECK((*extents)[3].host == HostOffset(image.cluster(5) + 1536));
  CHECK(test::all_are(*test::read(*disk, 512, 1024), 0));
  CHECK(test::all_are(*test::read(*disk, 1536, 1024), 0x55));

  SECTION("both bits for one subcluster") {
    image.set_extended_l2(0, image.cluster(5), 0x0000'0001'0000'0001);
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 0, 1), "invalid subcluster bitmap");
  }
  SECTION("allocated without a cluster") {
    image.set_extended_l2(0, 0, 1);
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 0, 1), "invalid subcluster bitmap");
  }
  SECTION("the zero flag of standard entries has no meaning here") {
    image.set_extended_l2(0, image.cluster(5) | kEntryZero, 1);
    CHECK(test::all_are(*test::read(*image.disk(), 0, 512), 0x55));
  }
}

TEST_CASE("compressed clusters are read in whole and in part", "[layer]") {
  TinyImage image(12, 4 * 4096);
  image.set_incompatible(incompatible::kCompressionType);
  image.put8(104, 1);
  std::vector<std::byte> cluster(4096);
  for (size_t i = 0; i < cluster.size(); ++i) cluster[i] = std::byte(i / 16);
  // A stream at an unaligned offset.
  const uint64_t at = image.cluster(5) + 301;
  const size_t length = ZSTD_compress(&image.bytes[at], 4096, cluster.data(), cluster.size(), 3);
  const auto descriptor = CompressedDescriptor::covering(HostOffset(at), length);
  image.set_l2(1, descriptor.encode(12));

  const auto whole = [&](const Disk& disk) {
    const auto read = test::read(disk, 4096, 4096);
    REQUIRE_OK(read);
    CHECK(*read == cluster);
  };
  SECTION("a valid stream") {
    const auto disk = image.disk();
    whole(*disk);
    const auto part = test::read(*disk, 4096 + 1000, 100);
    REQUIRE_OK(part);
    CHECK(std::equal(part->begin(), part->end(), cluster.begin() + 1000));
    std::vector<Extent> extents;
    REQUIRE_OK(disk->map(GuestOffset(0), disk->size(), extents));
    REQUIRE(extents.size() == 3);
    CHECK(extents[1].kind == ExtentKind::kCompressed);
    CHECK(extents[1].compressed_length == descriptor.readable_bytes());
  }
  SECTION("a read of more than the cluster holds is an error") {
    const auto disk = image.disk();
    std::vector<Extent> extents;
    REQUIRE_OK(disk->map(GuestOffset(4096), 4096, extents));
    std::vector<std::byte> to(8192);
    const auto of = [&](uint64_t at_guest, uint64_t bytes) {
      return disk->read_extent(extents[0], GuestOffset(at_guest),
                               std::span(to).first(static_cast<size_t>(bytes)));
    };
    REQUIRE_FAILS_WITH(of(4096, 8192), "8192 bytes from 0x1000 on are more than it holds");
    REQUIRE_FAILS_WITH(of(4096, 4097), "more than it holds");
    REQUIRE_FAILS_WITH(of(8191, 2), "more than it holds");
    REQUIRE_OK(of(8191, 1));
  }
  SECTION("the file ends with the stream, inside its last sector") {
    image.bytes.resize(at + length);
    whole(*image.disk());
  }
  SECTION("the file ends before") {
    image.bytes.resize(at + length / 2);
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 4096, 4096),
                       "compressed cluster of guest offset 0x1000 at 0x512d");
    image.bytes.resize(at - 10);
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 4096, 4096), "the image is truncated");
  }
  SECTION("a data file and a compressed cluster exclude each other") {
    image.set_incompatible(incompatible::kCompressionType | incompatible::kDataFile);
    const auto data = std::make_shared<MemoryStorage>("data");
    REQUIRE_FAILS_WITH(test::read(*image.disk(data), 4096, 1), "external data file");
  }
}

TEST_CASE("an L2 table past the end of the file is an error, not a hole", "[layer]") {
  TinyImage image(12, 4 * 4096);
  image.put64(image.cluster(3), image.cluster(100) | kEntryCopied);
  const std::string table = "L2 table at 0x64000 (L1 entry 0) for guest offset 0x1000: it ";
  REQUIRE_FAILS_WITH(test::read(*image.disk(), 4096, 1),
                     table + "lies past the end of the file at 0x8000: the image is truncated");
  CHECK_FALSE(map_all(*image.disk()).has_value());
  // An incomplete table is an error, too. QEMU would take the rest for zeros.
  image.put64(image.cluster(3), image.cluster(7) | kEntryCopied);
  image.bytes.resize(image.cluster(8) - 512);
  REQUIRE_FAILS_WITH(test::read(*image.disk(), 4096, 1),
                     "it ends past the end of the file at 0x7e00: the image is truncated");
}

namespace {

// Counts the bytes read.
class CountingStorage final : public Storage {
 public:
  explicit CountingStorage(std::vector<std::byte> bytes) : inner_("counted", std::move(bytes)) {}

  const std::string& name() const override { return inner_.name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override {
    bytes_read += to.size();
    return inner_.read(at, to);
  }
  Result<void> write(HostOffset at, std::span<const std::byte> from) override {
    return inner_.write(at, from);
  }
  Result<void> flush() override { return {}; }
  Result<uint64_t> size() const override { return inner_.size(); }
  Result<void> resize(uint64_t size) override { return inner_.resize(size); }
  Result<Run> run_at(HostOffset at, uint64_t limit) const override {
    return inner_.run_at(at, limit);
  }

  mutable uint64_t bytes_read = 0;

 private:
  MemoryStorage inner_;
};

}  // namespace

TEST_CASE("a long L1 table is read and cached in slices", "[layer]") {
  // 1 Mi entries. The first and the last one point to a table.
  constexpr uint32_t kEntries = 1 << 20;
  TinyImage image(12, uint64_t{kEntries} * 512 * 4096);
  image.bytes.resize(image.cluster(8) + kEntries * 8);
  image.put32(36, kEntries);
  image.put64(40, image.cluster(8));
  image.put64(image.cluster(8), image.cluster(4) | kEntryCopied);
  image.put64(image.cluster(8) + (kEntries - 1) * 8, image.cluster(4) | kEntryCopied);
  image.set_l2(511, image.cluster(5));
  image.fill(image.cluster(5), 4096, 0x55);
  const auto storage = std::make_shared<CountingStorage>(image.bytes);
  auto header = Header::read(*storage);
  REQUIRE_OK(header);
  const auto cache = std::make_shared<TableCache>(64 << 10);
  const auto opened = Image::open(storage, *std::move(header), nullptr, cache);
  REQUIRE_OK(opened);
  const auto layer = open_active_layer(*opened);
  REQUIRE_OK(layer);
  const Disk disk({*layer});
  const uint64_t last = disk.size() - 4096;
  for (const uint64_t at : {uint64_t{511} * 4096, last})
    CHECK(test::all_are(*test::read(disk, at, 4096), 0x55));
  CHECK(storage->bytes_read < 64 << 10);
  // Finds one hole between them, reading slice by slice.
  std::vector<Extent> extents;
  REQUIRE_OK(disk.map(GuestOffset(0), disk.size(), extents));
  REQUIRE(extents.size() == 4);
  CHECK(extents[2].kind == ExtentKind::kUnallocated);
  CHECK(extents[2].length == disk.size() - uint64_t{2} * 512 * 4096 + 511 * 4096);
  CHECK(extents[3].guest == GuestOffset(last));
}

TEST_CASE("an external data file is where the data is", "[layer]") {
  TinyImage image(12, 4 * 4096);
  image.set_incompatible(incompatible::kDataFile);
  image.set_l2(0, kEntryCopied);  // cluster 0 of the data file
  image.set_l2(1, 0);             // unallocated
  image.set_l2(2, 0x2000 | kEntryCopied);
  const auto data =
      std::make_shared<MemoryStorage>("data", std::vector<std::byte>(3 * 4096, std::byte{0x44}));
  const auto disk = image.disk(data);
  REQUIRE_OK(disk);
  CHECK(test::all_are(*test::read(*disk, 0, 4096), 0x44));
  CHECK(test::all_are(*test::read(*disk, 4096, 4096), 0));
  CHECK(test::all_are(*test::read(*disk, 8192, 4096), 0x44));
  const auto extents = map_all(*disk);
  REQUIRE_OK(extents);
  REQUIRE(extents->size() == 4);
  CHECK((*extents)[0].kind == ExtentKind::kData);
  CHECK((*extents)[0].host == HostOffset(0));
}

TEST_CASE("invalid entries cause errors that name the place", "[layer]") {
  TinyImage image(12, 4 * 4096);
  SECTION("unaligned data") {
    image.set_l2(1, image.cluster(5) + 512);
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 4096, 1),
                       "tiny.qcow2: guest offset 0x1000 maps to 0x5200");
  }
  SECTION("data at the largest offset") {
    image.set_l2(1, 0xbfffffffffff0000 & ~kEntryCompressed);
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 4096, 1), "past the end of the file");
  }
  SECTION("data past the end of the file") {
    image.set_l2(1, image.cluster(8));
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 4096 + 7, 1),
                       "guest offset 0x1007 maps to 0x8007");
    // Clusters before it can be read.
    REQUIRE_OK(test::read(*image.disk(), 0, 4096));
  }
  SECTION("the file ends inside a run of data") {
    image.set_l2(1, image.cluster(6));
    image.set_l2(2, image.cluster(7));
    image.set_l2(3, image.cluster(8));
    image.fill(image.cluster(6), 8192, 0x66);
    image.bytes.resize(image.cluster(7) + 100);
    const auto disk = image.disk();
    const auto partial = test::read(*disk, 4096, 8192);
    REQUIRE_OK(partial);
    CHECK(test::all_are(std::span(*partial).first(4096 + 100), 0x66));
    CHECK(test::all_are(std::span(*partial).subspan(4096 + 100), 0));
    REQUIRE_FAILS_WITH(test::read(*disk, 4096, 3 * 4096), "guest offset 0x3000 maps to");
  }
  SECTION("an unaligned L2 table") {
    image.put64(image.cluster(3), image.cluster(4) + 512);
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 0, 1), "L1 entry 0: the L2 table at 0x4200");
  }
  SECTION("an L2 table past the end of the file") {
    image.put64(image.cluster(3), 1ULL << 50);
    REQUIRE_FAILS_WITH(test::read(*image.disk(), 0, 1), "L2 table at 0x4000000000000");
  }
  SECTION("an L1 table past the end of the file") {
    image.put64(40, image.cluster(8));
    REQUIRE_FAILS_WITH(image.disk(), "the L1 table at 0x8000 ends past the end");
    image.put64(40, image.cluster(1ULL << 40));
    REQUIRE_FAILS_WITH(image.disk(), "the image is truncated");
  }
  SECTION("a zero cluster in version 2") {
    TinyImage old(12, 4096, 2);
    old.set_l2(0, kEntryZero);
    REQUIRE_FAILS_WITH(test::read(*old.disk(), 0, 1), "version 2");
  }
}

TEST_CASE("a hole of many L1 entries is one extent", "[layer]") {
  TinyImage image(9, 0, 3);
  // With 512-byte clusters, an L2 table maps 32 KiB, and one cluster of L1 has 64 entries.
  image.put64(24, 64 * 32768);
  image.put32(36, 64);
  image.set_l2(0, image.cluster(5));
  const auto disk = image.disk();
  REQUIRE_OK(disk);
  const auto extents = map_all(*disk);
  REQUIRE_OK(extents);
  REQUIRE(extents->size() == 2);
  CHECK((*extents)[1].length == 64 * 32768 - 512);
}
