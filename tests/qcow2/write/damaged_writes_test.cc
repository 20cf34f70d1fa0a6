// Writes to a damaged image never overwrite a table, and never truncate clusters in use.
#include <functional>

#include "qcow2/write/disk_writer.h"
#include "qcow2/write/overlap_check.h"
#include "qcow2/write/snapshot_editor.h"
#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;
using support::run_ok;

namespace {

using Bytes = std::vector<std::byte>;
constexpr uint64_t kCluster = 64 << 10;
constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kOffset = 0x00fffffffffffe00;

uint64_t get64(const Bytes& bytes, uint64_t at) {
  uint64_t value = 0;
  for (uint64_t i = 0; i < 8; ++i) value = value << 8 | std::to_integer<uint64_t>(bytes[at + i]);
  return value;
}

void put64(Bytes& bytes, uint64_t at, uint64_t value) {
  for (uint64_t i = 0; i < 8; ++i) bytes[at + i] = std::byte(value >> (56 - 8 * i) & 0xff);
}

// A disk of 8 MiB with 2 MiB of data and a snapshot.
struct Twin {
  Bytes bytes;
  uint64_t l1, l2, reftable, block, snapshots;

  explicit Twin(const std::string& options = "cluster_size=64k") {
    const support::TempDirectory folder;
    const std::string path = folder / "image";
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "8M"});
    run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 2M", path});
    run_ok({"qemu-img", "snapshot", "-c", "s", path});
    run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 2 0 1M", path});
    bytes = support::read_file(path);
    l1 = get64(bytes, 40);
    l2 = get64(bytes, l1) & kOffset;
    reftable = get64(bytes, 48);
    block = get64(bytes, reftable);
    snapshots = get64(bytes, 64);
  }
};

Result<std::unique_ptr<DiskWriter>> open(const std::shared_ptr<MemoryStorage>& storage) {
  ASSIGN_OR_RETURN(Header header, Header::read(*storage));
  return DiskWriter::open(storage, std::move(header), nullptr, {},
                          std::make_shared<TableCache>(1 << 20), {});
}

const Bytes kSector(512, std::byte{0xee});

}  // namespace

TEST_CASE("guest data never overwrites a table", "[damaged-writes]") {
  const Twin twin;
  const std::vector<std::pair<const char*, uint64_t>> tables = {
      {"the header", 0},
      {"the L1 table", twin.l1},
      {"an L2 table", twin.l2},
      {"the refcount table", twin.reftable},
      {"a refcount block", twin.block},
      {"the snapshot table", twin.snapshots},
      {"the L1 table of a snapshot", get64(twin.bytes, twin.snapshots)}};
  for (const auto& [name, at] : tables) {
    if (at == 0) continue;  // unallocated
    INFO(name);
    Bytes bytes = twin.bytes;
    put64(bytes, twin.l2 + 8 * 3, at | kCopied);
    const auto storage = std::make_shared<MemoryStorage>("image", bytes);
    const auto disk = open(storage);
    REQUIRE_OK(disk);
    REQUIRE_FAILS_WITH((*disk)->write(GuestOffset(3 * kCluster + 512), kSector), name);
    // The next writer gets the error, and the image has QEMU's mark.
    REQUIRE_FAILS_WITH((*disk)->write(GuestOffset(0), kSector), "marked corrupt");
    put64(bytes, 72, get64(bytes, 72) | 2);
    CHECK((storage->bytes() == bytes));
    REQUIRE_OK((*disk)->close());
    CHECK((storage->bytes() == bytes));
    REQUIRE_FAILS_WITH(open(storage), "marked corrupt");
  }
}

TEST_CASE("an L1 entry that points to another table is detected before the first write",
          "[damaged-writes]") {
  const Twin twin;
  for (const uint64_t at : {twin.l1, twin.reftable, twin.block, twin.snapshots}) {
    CAPTURE(at);
    Bytes bytes = twin.bytes;
    put64(bytes, twin.l1, at | kCopied);
    const auto storage = std::make_shared<MemoryStorage>("image", bytes);
    REQUIRE_FAILS_WITH(open(storage), "repair the image first");
    CHECK((storage->bytes() == bytes));
  }
}

TEST_CASE("a discard never frees a table", "[damaged-writes]") {
  const Twin twin;
  Bytes bytes = twin.bytes;
  put64(bytes, twin.l2 + 8 * 3, twin.block | kCopied);
  const auto storage = std::make_shared<MemoryStorage>("image", bytes);
  const auto disk = open(storage);
  REQUIRE_OK(disk);
  REQUIRE_OK((*disk)->discard(GuestOffset(3 * kCluster), kCluster));
  REQUIRE_OK((*disk)->flush());
  REQUIRE_OK((*disk)->flush());
  const Bytes now = storage->bytes();
  CHECK(get64(now, twin.l2 + 8 * 3) != get64(bytes, twin.l2 + 8 * 3));
  // The block's own refcount, and the header's, in the block that was not punched.
  CHECK(now[twin.block + 2 * (twin.block / kCluster) + 1] == std::byte{1});
  CHECK(now[twin.block + 1] == std::byte{1});
}

TEST_CASE("the overlap check knows tables that are added and removed", "[damaged-writes]") {
  // The first write to a region allocates an L2 table. Shared tables are copied before they change.
  const Twin twin("cluster_size=512");
  const auto storage = std::make_shared<MemoryStorage>("image", twin.bytes);
  auto disk = open(storage);
  REQUIRE_OK(disk);
  Bytes model(8 << 20);
  REQUIRE_OK((*disk)->read(GuestOffset(0), model));
  for (uint64_t round = 0; round < 3; ++round) {
    for (uint64_t at = 0; at < model.size(); at += 20480) {
      const Bytes piece(1536, std::byte(1 + at / 20480 % 200 + round));
      REQUIRE_OK((*disk)->write(GuestOffset(at), piece));
      std::copy(piece.begin(), piece.end(), model.begin() + static_cast<ptrdiff_t>(at));
    }
    REQUIRE_OK((*disk)->discard(GuestOffset(1 << 20), 1 << 20));
    std::fill_n(model.begin() + (1 << 20), 1 << 20, std::byte{0});
    REQUIRE_OK((*disk)->flush());
  }
  Bytes now(model.size());
  REQUIRE_OK((*disk)->read(GuestOffset(0), now));
  CHECK((now == model));
  REQUIRE_OK((*disk)->close());
}

TEST_CASE("clusters without a refcount are not truncated", "[damaged-writes]") {
  Twin twin;
  // The guest's last clusters are the last ones of the file, and have no refcount.
  const uint64_t clusters = twin.bytes.size() / kCluster;
  for (uint64_t cluster = clusters - 4; cluster < clusters; ++cluster) {
    twin.bytes[twin.block + 2 * cluster] = twin.bytes[twin.block + 2 * cluster + 1] = std::byte{0};
  }
  const auto storage = std::make_shared<MemoryStorage>("image", twin.bytes);
  const auto disk = open(storage);
  REQUIRE_OK(disk);
  REQUIRE_OK((*disk)->write(GuestOffset(0), kSector));
  REQUIRE_OK((*disk)->close());
  CHECK(storage->bytes().size() == twin.bytes.size());
}

TEST_CASE("snapshots are changed only if the refcounts are wide enough", "[damaged-writes]") {
  const Twin twin;
  // A data cluster of the snapshot, with a refcount that is one too low, or zero.
  const uint64_t shared = (get64(twin.bytes, twin.l2 + 8 * 20) & kOffset) / kCluster;
  for (const unsigned count : {0u, 1u}) {
    CAPTURE(count);
    Bytes bytes = twin.bytes;
    REQUIRE(bytes[twin.block + 2 * shared + 1] == std::byte{2});
    bytes[twin.block + 2 * shared + 1] = std::byte(count);
    const auto change = [&](const std::function<Result<void>(SnapshotEditor&)>& what) {
      const auto storage = std::make_shared<MemoryStorage>("image", bytes);
      const auto editor = SnapshotEditor::open(storage);
      REQUIRE_OK(editor);
      REQUIRE_FAILS_WITH(what(**editor), "repair the image first");
      CHECK((storage->bytes() == bytes));
    };
    change([](SnapshotEditor& it) -> Result<void> {
      RETURN_IF_ERROR(it.create("new", {}));
      return {};
    });
    change([](SnapshotEditor& it) { return it.remove("s"); });
    change([](SnapshotEditor& it) { return it.apply("s"); });
  }
}

TEST_CASE("a snapshot is deleted by its name first, and applied by its id", "[damaged-writes]") {
  const support::TempDirectory folder;
  const std::string path = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1M"});
  for (const char* const name : {"2", "x"}) run_ok({"qemu-img", "snapshot", "-c", name, path});
  const Bytes bytes = support::read_file(path);
  const auto storage = std::make_shared<MemoryStorage>("image", bytes);
  const auto editor = SnapshotEditor::open(storage);
  REQUIRE_OK(editor);
  REQUIRE_OK((*editor)->remove("2"));
  REQUIRE((*editor)->snapshots().size() == 1);
  CHECK((*editor)->snapshots().front().name == "x");
  // By ID, because the name no longer exists.
  REQUIRE_OK((*editor)->remove("2"));
  CHECK((*editor)->snapshots().empty());
  run_ok({"qemu-img", "snapshot", "-d", "2", path});
  CHECK_THAT(run_ok({"qemu-img", "snapshot", "-l", path}).out, Catch::Contains(" x "));
}

TEST_CASE("a change of snapshots clears unknown autoclear bits", "[damaged-writes]") {
  Twin twin;
  twin.bytes[95] |= std::byte{0x20};
  const auto storage = std::make_shared<MemoryStorage>("image", twin.bytes);
  const auto editor = SnapshotEditor::open(storage);
  REQUIRE_OK(editor);
  REQUIRE_OK((*editor)->remove("s"));
  CHECK(storage->bytes()[95] == std::byte{0});
}

TEST_CASE("a table with many references is read once, or not at all", "[damaged-writes]") {
  Twin twin;
  // The snapshot's L1 table is the disk's own.
  put64(twin.bytes, twin.snapshots, twin.l1);
  const auto storage = std::make_shared<MemoryStorage>("image", twin.bytes);
  const auto editor = SnapshotEditor::open(storage);
  REQUIRE_OK(editor);
  REQUIRE_FAILS_WITH((*editor)->remove("s"), "overlap");
}

TEST_CASE("an image whose snapshot table lacks refcounts is refused", "[damaged-writes]") {
  constexpr uint64_t kSmall = 512;
  const support::TempDirectory folder;
  const std::string path = folder / "image";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "1M"});
  // Three entries of more than 200 bytes: the snapshot table takes two clusters.
  for (const char letter : {'a', 'b', 'c'})
    run_ok({"qemu-img", "snapshot", "-c", std::string(200, letter), path});
  Bytes bytes = support::read_file(path);
  REQUIRE_OK(open(std::make_shared<MemoryStorage>("image", bytes)));

  const uint64_t last = get64(bytes, 64) / kSmall + 1;
  constexpr uint64_t kPerBlock = kSmall / 2;
  const uint64_t block = get64(bytes, get64(bytes, 48) + last / kPerBlock * 8);
  const uint64_t count = block + last % kPerBlock * 2;
  REQUIRE(bytes[count + 1] == std::byte{1});
  bytes[count + 1] = std::byte{0};
  REQUIRE_FAILS_WITH(open(std::make_shared<MemoryStorage>("image", bytes)), "snapshot table at");
}

TEST_CASE("the overlap check finds all tables in a range", "[overlap-check]") {
  OverlapCheck check;
  check.add(HostCluster(10), 3, Structure::kL1Table);
  check.add(HostCluster(0), 1, Structure::kHeader);
  check.add(HostCluster(20), 1, Structure::kL2Table);
  check.add(HostCluster(20), 1, Structure::kL2Table);
  REQUIRE_OK(check.complete());
  CHECK(!check.find(HostCluster(1), 9));
  CHECK(check.find(HostCluster(1), 10)->cluster == HostCluster(10));
  CHECK(check.find(HostCluster(12), 1)->structure == Structure::kL1Table);
  CHECK(!check.find(HostCluster(13), 7));
  check.insert(HostCluster(15), Structure::kL2Table);
  CHECK(check.find(HostCluster(13), 7)->cluster == HostCluster(15));
  check.erase(HostCluster(11), 5);
  CHECK(!check.find(HostCluster(11), 9));
  CHECK(check.find(HostCluster(10), 1));
  check.add(HostCluster(10), 1, Structure::kRefcountBlock);
  REQUIRE_FAILS_WITH(check.complete(), "both the L1 table and a refcount block");
}
