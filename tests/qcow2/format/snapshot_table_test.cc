#include "qcow2/format/snapshot_table.h"

#include "tests/catch_text.h"
#include "tests/qcow2/tiny_image.h"

using namespace vc;

using namespace qcow2;
using test::TinyImage;

namespace {

// Writes an entry at `at`. Returns the offset of the next one.
uint64_t put_snapshot(TinyImage& image, uint64_t at, std::string_view id, std::string_view name,
                      uint32_t extra, uint64_t l1_table) {
  image.put64(at, l1_table);
  image.put32(at + 8, 1);
  image.put16(at + 12, static_cast<uint16_t>(id.size()));
  image.put16(at + 14, static_cast<uint16_t>(name.size()));
  image.put32(at + 16, 1700000000);
  image.put64(at + 24, 5000);
  image.put32(at + 32, 77);
  image.put32(at + 36, extra);
  if (extra >= 8) image.put64(at + 40, 1ULL << 33);
  if (extra >= 16) image.put64(at + 48, 3 << 20);
  if (extra >= 24) image.put64(at + 56, 42);
  if (extra >= 32) image.put64(at + 64, 0xabcdef);
  at += 40 + extra;
  image.put_text(at, id);
  image.put_text(at + id.size(), name);
  return (at + id.size() + name.size() + 7) / 8 * 8;
}

Result<std::vector<Snapshot>> snapshots_of(const TinyImage& image) {
  const auto storage = image.storage();
  ASSIGN_OR_RETURN(const Header header, Header::read(*storage));
  return read_snapshot_table(*storage, header);
}

}  // namespace

TEST_CASE("snapshot entries of all versions are read", "[snapshot]") {
  TinyImage image(12);
  image.put32(60, 3);
  image.put64(64, image.cluster(5));
  uint64_t at = put_snapshot(image, image.cluster(5), "1", "before update", 0, image.cluster(3));
  at = put_snapshot(image, at, "2", "1", 16, image.cluster(3));
  put_snapshot(image, at, "17", "\xc3\xa9t\xc3\xa9", 32, image.cluster(3));
  const auto snapshots = snapshots_of(image);
  REQUIRE_OK(snapshots);
  REQUIRE(snapshots->size() == 3);

  const Snapshot& old = (*snapshots)[0];
  CHECK(old.id == "1");
  CHECK(old.name == "before update");
  CHECK(old.disk_size == 1 << 20);  // size of the image's disk
  CHECK(old.vm_state_size == 77);
  CHECK(old.date_seconds == 1700000000);
  CHECK(old.vm_clock_nanoseconds == 5000);
  CHECK(old.l1_table == HostOffset(image.cluster(3)));

  CHECK((*snapshots)[1].vm_state_size == 1ULL << 33);
  CHECK((*snapshots)[1].disk_size == 3 << 20);
  CHECK((*snapshots)[1].instruction_count == UINT64_MAX);
  CHECK((*snapshots)[2].instruction_count == 42);
  CHECK((*snapshots)[2].unknown_extra.size() == 8);

  // By ID first, then by name, as qemu-img does.
  CHECK(find_snapshot(*snapshots, "1") == &(*snapshots)[0]);
  CHECK(find_snapshot(*snapshots, "before update") == &(*snapshots)[0]);
  CHECK(find_snapshot(*snapshots, "17") == &(*snapshots)[2]);
  CHECK(find_snapshot(*snapshots, "none") == nullptr);
}

TEST_CASE("a bad snapshot table is refused", "[snapshot]") {
  TinyImage image(12);
  image.put32(60, 1);
  image.put64(64, image.cluster(5));
  put_snapshot(image, image.cluster(5), "1", "x", 16, image.cluster(3));
  SECTION("more entries than bytes") {
    image.put32(60, 65536);
    REQUIRE_FAILS_WITH(snapshots_of(image), "the file ends at");
  }
  SECTION("past the end of the file") {
    image.put64(64, 1ULL << 40);
    REQUIRE_FAILS_WITH(snapshots_of(image), "the file ends at");
  }
  SECTION("too much extra data") {
    image.put32(image.cluster(5) + 36, GENERATE(1025u, 0xffffffffu));
    REQUIRE_FAILS_WITH(snapshots_of(image), "extra data");
  }
  SECTION("an L1 table that is too large") {
    image.put32(image.cluster(5) + 8, 0xffffffff);
    REQUIRE_FAILS_WITH(snapshots_of(image), "its L1 table has 4294967295 entries");
  }
  SECTION("an unaligned L1 table") {
    image.put64(image.cluster(5), GENERATE(4097ULL, 0xfffffffffffff000ULL));
    REQUIRE_FAILS_WITH(snapshots_of(image), "does not begin at a cluster");
  }
  SECTION("a disk that is too large") {
    image.put64(image.cluster(5) + 48, UINT64_MAX);
    REQUIRE_FAILS_WITH(snapshots_of(image), "its disk has");
  }
}
