#include "tests/qcow2/check/damages.h"

#include <fmt/format.h>

#include <functional>

#include "qcow2/format/l2_entry.h"
#include "qcow2/format/refcount_block.h"
#include "tests/interop/image_editor.h"
#include "tests/support/process.h"

namespace vc::checks {

namespace {

using Editor = interop::ImageEditor;
using Kind = qcow2::Finding::Kind;
using support::run_ok;
using Edit = std::function<void(Editor&)>;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 64 << 10;
constexpr uint64_t kCopied = qcow2::kEntryCopied;

class Damages {
 public:
  explicit Damages(std::string folder) : folder_(std::move(folder)) {}

  std::vector<Damage> make() {
    v3_ = good("v3", "compat=1.1");
    refcounts();
    refcount_structure();
    tables();
    compressed();
    snapshots();
    extended();
    bitmaps();
    data_file();
    header();
    widths();
    return std::move(damages_);
  }

 private:
  // 64 KiB clusters: header, refcount table, refcount block, L1 table, L2 table, data (three),
  // compressed.
  std::string good(const std::string& name, const std::string& options) {
    const std::string path = fmt::format("{}/good-{}.qcow2", folder_, name);
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "4M"});
    run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 17 0 192k", "-c",
            "write -q -c -P 19 3M 64k", path});
    return path;
  }

  Damage& add(const std::string& good, const std::string& name, std::optional<Kind> finds,
              const Edit& edit) {
    Damage damage;
    damage.name = name;
    damage.path = fmt::format("{}/damaged-{}.qcow2", folder_, damages_.size());
    damage.finds = finds;
    Editor editor(good);
    edit(editor);
    editor.save_as(damage.path);
    damages_.push_back(std::move(damage));
    return damages_.back();
  }
  Damage& add(const std::string& name, std::optional<Kind> finds, const Edit& edit) {
    return add(v3_, name, finds, edit);
  }

  static uint64_t reftable(const Editor& it) { return it.get64(Editor::kRefcountTableOffset); }
  static uint64_t refblock(const Editor& it) { return it.get64(reftable(it)); }
  // Returns the offset of a cluster's refcount, which has 16 bits.
  static uint64_t count_at(const Editor& it, uint64_t cluster) {
    return refblock(it) + cluster * 2;
  }
  static void put_count(Editor& it, uint64_t cluster, uint16_t count) {
    const std::byte bytes[2] = {std::byte(count >> 8), std::byte(count & 0xff)};
    it.put(count_at(it, cluster), bytes);
  }
  static uint64_t l1(const Editor& it) { return it.get64(Editor::kL1Offset); }
  static uint64_t l2(const Editor& it) { return it.l2_entry_at(0); }

  void refcounts();
  void refcount_structure();
  void tables();
  void compressed();
  void snapshots();
  void extended();
  void bitmaps();
  void data_file();
  void header();
  void widths();

  const std::string folder_;
  std::string v3_;
  std::vector<Damage> damages_;
};

void Damages::refcounts() {
  add("a leaked cluster", Kind::kLeak, [](Editor& it) {
    it.bytes().resize(it.bytes().size() + 2 * kCluster);
    put_count(it, 9, 1);
  }).our_code = 3;
  add("a count of 2 for one reference", Kind::kLeak, [](Editor& it) { put_count(it, 6, 2); });
  add("a count of 0 for a data cluster", Kind::kRefcountTooLow,
      [](Editor& it) { put_count(it, 6, 0); });
  add("a count of 0 for the L2 table", Kind::kRefcountTooLow,
      [](Editor& it) { put_count(it, 4, 0); });
  add("a count of 0 for the header", Kind::kRefcountTooLow,
      [](Editor& it) { put_count(it, 0, 0); });
  add("a count of 0 for the refcount block itself", Kind::kRefcountTooLow,
      [](Editor& it) { put_count(it, 2, 0); });
  add("a count of 65535", Kind::kLeak, [](Editor& it) { put_count(it, 7, 65535); });
  add("COPIED is missing in an L2 entry", Kind::kL2Copied,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it)) & ~kCopied); });
  add("COPIED is missing in an L1 entry", Kind::kL1Copied,
      [](Editor& it) { it.put64(l1(it), it.get64(l1(it)) & ~kCopied); });
  add("two clusters in one place", Kind::kRefcountTooLow,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it) + 8)); });
}

void Damages::refcount_structure() {
  add("no refcount block", Kind::kRefcountTooLow, [](Editor& it) { it.put64(reftable(it), 0); });
  add("an unaligned refcount block", Kind::kRefcountBlockUnaligned, [](Editor& it) {
    it.put64(reftable(it), refblock(it) + 512);
  }).our_code = 1;
  add("reserved bits of a refcount table entry", Kind::kRefcountTableReserved,
      [](Editor& it) { it.put64(reftable(it), refblock(it) | 4); });
  add("the refcount block past the end", Kind::kRefcountBlockOutside,
      [](Editor& it) { it.put64(reftable(it), uint64_t{1} << 40); });
  add("a refcount block past the end of any file", Kind::kRefcountBlockOutside, [](Editor& it) {
    it.put64(reftable(it), it.get64(reftable(it)) | uint64_t{1} << 63);
  }).differs = "qemu-img takes the offset for negative, and gives up";
  add("a refcount table entry of ones", Kind::kRefcountTableReserved, [](Editor& it) {
    it.put64(reftable(it), UINT64_MAX);
  }).our_code = 1;
  add("a second refcount block past the end", Kind::kRefcountBlockOutside,
      [](Editor& it) { it.put64(reftable(it) + 8, uint64_t{1} << 40); });
  add("a refcount block that is there twice", Kind::kRefcountBlockShared,
      [](Editor& it) { it.put64(reftable(it) + 8, refblock(it)); });
  add("the refcount block on the L1 table", Kind::kRefcountBlockShared,
      [](Editor& it) { it.put64(reftable(it), l1(it)); });
  add("a refcount block of zeros", Kind::kRefcountTooLow,
      [](Editor& it) { it.put(refblock(it), std::vector<std::byte>(kCluster)); });
  add("no refcount table", Kind::kRefcountTooLow,
      [](Editor& it) { it.put32(Editor::kRefcountTableClusters, 0); });
  add("the refcount table past the end", Kind::kReferenceOutside,
      [](Editor& it) { it.put64(Editor::kRefcountTableOffset, uint64_t{1} << 40); });
  add("an unaligned refcount table", Kind::kRefcountTableUnusable, [](Editor& it) {
    it.put64(Editor::kRefcountTableOffset, reftable(it) + 512);
  }).differs = "qemu-img cannot open it; all but the counts is there, and they can be rebuilt";
  add("a refcount table of 2^32 - 1 clusters", Kind::kRefcountTableUnusable, [](Editor& it) {
    it.put32(Editor::kRefcountTableClusters, UINT32_MAX);
  }).differs = "qemu-img cannot open it; all but the counts is there, and they can be rebuilt";
  add("the refcount table on the header", Kind::kOverlap,
      [](Editor& it) { it.put64(Editor::kRefcountTableOffset, 0); });
}

void Damages::tables() {
  add("reserved bits of an L1 entry", Kind::kL1Reserved,
      [](Editor& it) { it.put64(l1(it), it.get64(l1(it)) | 1); });
  add("high reserved bits of an L1 entry", Kind::kL1Reserved,
      [](Editor& it) { it.put64(l1(it), it.get64(l1(it)) | uint64_t{1} << 57); });
  add("COPIED and nothing else in an L1 entry", Kind::kL1Copied, [](Editor& it) {
    it.put64(l1(it), kCopied);
  }).differs = "qemu-img takes the header for an L2 table";
  add("an unaligned L2 table", Kind::kL2TableUnaligned,
      [](Editor& it) { it.put64(l1(it), it.get64(l1(it)) + 512); })
      .differs =
      "qemu-img takes what is there for entries; a guest cannot read or write through them";
  add("an L2 table past the end", Kind::kReferenceOutside,
      [](Editor& it) { it.put64(l1(it), kCopied | uint64_t{1} << 40); });
  add("an L2 table right past the end", Kind::kReferenceOutside, [](Editor& it) {
    it.put64(l1(it), kCopied | ((it.bytes().size() + 2 * kCluster - 1) / kCluster * kCluster));
  });
  add("the L1 table as an L2 table", Kind::kOverlap,
      [](Editor& it) { it.put64(l1(it), kCopied | l1(it)); });
  add("the refcount block as an L2 table", Kind::kOverlap,
      [](Editor& it) { it.put64(l1(it), kCopied | refblock(it)); });
  // QEMU takes such an entry for unallocated, too.
  add("COPIED and nothing else in an L2 entry", Kind::kLeak, [](Editor& it) {
    it.put64(l2(it), kCopied);
  }).our_code = 3;
  add("reserved bits of an L2 entry", Kind::kL2Reserved,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it)) | 2); });
  add("high reserved bits of an L2 entry", Kind::kL2Reserved,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it)) | uint64_t{1} << 60); });
  add("reserved bits of an empty L2 entry", Kind::kL2Reserved,
      [](Editor& it) { it.put64(l2(it) + 8 * 20, 4); });
  add("unaligned data", Kind::kDataUnaligned,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it)) + 512); });
  add("an unaligned place of zeros", Kind::kPreallocatedUnaligned,
      [](Editor& it) { it.put64(l2(it), (it.get64(l2(it)) + 512) | 1); });
  add("data on the refcount block", Kind::kOverlap,
      [](Editor& it) { it.put64(l2(it), kCopied | refblock(it)); });
  add("data on the L1 table, counted twice", Kind::kOverlap, [](Editor& it) {
    it.put64(l2(it), l1(it));
    put_count(it, 3, 2);
    put_count(it, 5, 0);
  }).differs = "the count agrees, so qemu-img is content; a write to the data changes the table";
  add("data past the end", Kind::kReferenceOutside,
      [](Editor& it) { it.put64(l2(it), kCopied | uint64_t{1} << 45); });
  add("data at 32 PB", Kind::kReferenceOutside,
      [](Editor& it) { it.put64(l2(it), kCopied | uint64_t{1} << 55); });
  add("an L2 entry of 0xbfffffffffff0000", Kind::kReferenceOutside,
      [](Editor& it) { it.put64(l2(it), 0xbfffffffffff0000); });
  add("the L1 table past the end", Kind::kReferenceOutside,
      [](Editor& it) { it.put64(Editor::kL1Offset, uint64_t{1} << 40); });
  add("the L1 table on the header", Kind::kOverlap,
      [](Editor& it) { it.put64(Editor::kL1Offset, 0); });
  add("a longer L1 table than fits", Kind::kOverlap, [](Editor& it) {
    it.put32(Editor::kL1Size, 2 * kCluster / 8);
  }).differs = "qemu-img does not say that the table ends past the end of the file";
  add("the last data cluster is cut off", Kind::kReferenceOutside,
      [](Editor& it) { it.bytes().resize(5 * kCluster); });
  add("half of an L2 table is cut off", Kind::kReferenceOutside, [](Editor& it) {
    it.bytes().resize(4 * kCluster + kCluster / 2);
  }).differs = "qemu-img reads the missing entries as zeros";
  // The missing bytes read as zeros. Compressed data begins where the cluster ends.
  add("half of the last data cluster is cut off", Kind::kStreamTruncated, [](Editor& it) {
    it.bytes().resize(7 * kCluster + kCluster / 2);
  }).differs = "qemu-img looks no closer than a cluster; reading it is an error";
  const std::string v2 = good("v2", "compat=0.10");
  add(v2, "a zero cluster in version 2", Kind::kZeroFlagVersion2, [](Editor& it) {
    it.put64(l2(it), it.get64(l2(it)) | 1);
  }).differs = "qemu-img check is content, and then the disk cannot be read there";
  add(v2, "a count of 0, version 2", Kind::kRefcountTooLow,
      [](Editor& it) { put_count(it, 6, 0); });
}

void Damages::compressed() {
  const auto entry = [](const Editor& it) { return it.l2_entry_at(3 * kMiB); };
  add("a compressed entry with COPIED", Kind::kCompressedCopied,
      [&](Editor& it) { it.put64(entry(it), it.get64(entry(it)) | kCopied); });
  add("compressed data past the end", Kind::kReferenceOutside,
      [&](Editor& it) { it.put64(entry(it), qcow2::kEntryCompressed | uint64_t{1} << 40); });
  add("a descriptor that reaches into the next cluster", Kind::kRefcountTooLow, [&](Editor& it) {
    it.bytes().resize(10 * kCluster);
    const auto was = qcow2::CompressedDescriptor::decode(it.get64(entry(it)), 16);
    it.put64(entry(it), qcow2::CompressedDescriptor{was.offset, 200}.encode(16));
  });
  add("compressed data in the last cluster, past the end", Kind::kStreamTruncated, [&](Editor& it) {
    const uint64_t end = it.bytes().size() / kCluster * kCluster + kCluster / 2;
    it.bytes().resize(end);
    it.put64(entry(it), qcow2::CompressedDescriptor{HostOffset(end + 1024), 2}.encode(16));
  }).differs = "qemu-img looks no closer than a cluster; reading it is an error";
  add("compressed data on the L1 table", Kind::kOverlap, [&](Editor& it) {
    it.put64(entry(it), qcow2::CompressedDescriptor{HostOffset(l1(it) + 700), 2}.encode(16));
  });
  add("a compressed entry at the greatest offset", Kind::kReferenceOutside,
      [&](Editor& it) { it.put64(entry(it), UINT64_MAX >> 1); });
}

void Damages::snapshots() {
  const std::string path = good("snapshot", "compat=1.1");
  run_ok({"qemu-img", "snapshot", "-q", "-c", "one", path});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 33 64k 64k", path});
  run_ok({"qemu-img", "snapshot", "-q", "-c", "two", path});
  const auto table = [](const Editor& it) { return it.get64(Editor::kSnapshotOffset); };
  const auto snapshot_l1 = [=](const Editor& it) { return it.get64(table(it)); };
  add(path, "COPIED in an active entry that a snapshot shares", Kind::kL2Copied,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it)) | kCopied); });
  add(path, "reserved bits of a snapshot's L1 entry", Kind::kL1Reserved,
      [&](Editor& it) { it.put64(snapshot_l1(it), it.get64(snapshot_l1(it)) | 8); });
  add(path, "COPIED and nothing else in a snapshot's L1 entry", Kind::kL1Copied, [&](Editor& it) {
    it.put64(snapshot_l1(it), kCopied);
  }).differs = "qemu-img takes the header for an L2 table";
  add(path, "a snapshot's L1 entry leads to nothing", Kind::kLeak, [&](Editor& it) {
    it.put64(snapshot_l1(it), 0);
  }).our_code = 3;
  add(path, "an unaligned L1 table of a snapshot", Kind::kSnapshotL1Unaligned,
      [&](Editor& it) { it.put64(table(it), snapshot_l1(it) + 8); });
  add(path, "a snapshot's L1 table of 2^32 - 1 entries", Kind::kSnapshotL1TooLarge,
      [&](Editor& it) { it.put32(table(it) + 8, UINT32_MAX); });
  add(path, "a snapshot's L1 table past the end", Kind::kReferenceOutside,
      [&](Editor& it) { it.put64(table(it), uint64_t{1} << 41); });
  const auto second = [=](const Editor& it) {
    return (table(it) + 40 + it.get32(table(it) + 36) + 1 + 3 + 7) / 8 * 8;
  };
  add(path, "both snapshots with one L1 table", Kind::kRefcountTooLow,
      [&](Editor& it) { it.put64(second(it), snapshot_l1(it)); });
  // The table is at the end of the file.  qemu-img rounds the length of a file to sectors: by that
  // length, less than a cluster of the table is past the end.
  add(path, "a snapshot table that ends a cluster and 80 bytes past the end", Kind::kRefcountTooLow,
      [&](Editor& it) {
        const uint64_t row = second(it), fixed = 40 + it.get32(row + 36);
        const uint64_t end = row + fixed;
        it.bytes().resize(end);
        const uint32_t names = kCluster + 80;
        it.put32(row + 12, (names - 60000) << 16 | 60000);
      });
  add(path, "a snapshot with the active L1 table", Kind::kOverlap,
      [&](Editor& it) { it.put64(table(it), l1(it)); });
  add(path, "2^32 - 1 snapshots", Kind::kSnapshotsTooMany, [](Editor& it) {
    it.put32(Editor::kSnapshotCount, UINT32_MAX);
  }).differs = "qemu-img stops before it looks at anything; both say 1";
  damages_.back().our_code = 1;
  add(path, "a snapshot table that does not begin at a cluster", Kind::kSnapshotTableUnusable,
      [&](Editor& it) { it.put64(Editor::kSnapshotOffset, table(it) + 8); })
      .differs = "qemu-img stops before it looks at anything; both say 1";
  damages_.back().our_code = 1;
  add(path, "the snapshot table past the end", Kind::kReferenceOutside,
      [](Editor& it) { it.put64(Editor::kSnapshotOffset, uint64_t{1} << 40); });
  add(path, "2 GiB of extra data", Kind::kSnapshotTableUnusable, [&](Editor& it) {
    it.put32(table(it) + 36, uint32_t{1} << 31);
  }).differs = "qemu-img stops before it looks at anything; both say 1";
  damages_.back().our_code = 1;
  add(path, "2000 bytes of extra data", Kind::kSnapshotExtraTooLong, [&](Editor& it) {
    it.put32(table(it) + 36, 2000);
  }).differs = "qemu-img stops there; we go on with the rest";
  add(path, "a snapshot without a disk size", Kind::kSnapshotIncomplete, [&](Editor& it) {
    it.put32(table(it) + 36, 8);
    it.put32(Editor::kSnapshotCount, 1);
  });
  add(path, "one snapshot fewer", Kind::kLeak, [](Editor& it) {
    it.put32(Editor::kSnapshotCount, 1);
  }).our_code = 3;
}

void Damages::extended() {
  const std::string path = good("extended", "extended_l2=on");
  add(path, "a subcluster both allocated and zero", Kind::kSubclusterConflict,
      [](Editor& it) { it.put64(l2(it) + 8, 0x0000000100000001); });
  add(path, "an allocated subcluster nowhere", Kind::kSubclusterNowhere,
      [](Editor& it) { it.put64(l2(it) + 16 * 40 + 8, 1); });
  add(path, "an unaligned place of subclusters that read as zeros", Kind::kPreallocatedUnaligned,
      [](Editor& it) {
        it.put64(l2(it), it.get64(l2(it)) + 512);
        it.put64(l2(it) + 8, uint64_t{UINT32_MAX} << 32);
      });
  add(path, "unaligned subclusters", Kind::kDataUnaligned,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it)) + 512); });
  add(path, "compressed subclusters", Kind::kCompressedBitmap,
      [](Editor& it) { it.put64(it.l2_entry_at(3 * kMiB) + 8, 1); });
  add(path, "a zero flag in an extended entry", std::nullopt,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it)) | 1); });
  damages_.back().our_code = 0;
}

void Damages::bitmaps() {
  const std::string path = good("bitmaps", "compat=1.1");
  run_ok({"qemu-img", "bitmap", "--add", path, "first"});
  run_ok({"qemu-img", "bitmap", "--add", "-g", "512", path, "second"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 33 1M 64k", path});
  const auto extension = [](const Editor& it) {
    for (uint64_t at = 112;;) {
      const uint32_t type = it.get32(at);
      if (type == 0x23852875) return at + 8;
      at += 8 + (it.get32(at + 4) + 7) / 8 * 8;
    }
  };
  const auto directory = [=](const Editor& it) { return it.get64(extension(it) + 16); };
  const auto table = [=](const Editor& it) { return it.get64(directory(it)); };
  const std::string all_else = "qemu-img cannot open it, for the bitmap's sake; we check all else";
  const std::string stops = "qemu-img cannot open it; we check all else, but cannot know of leaks";
  add(path, "a bitmap's table entry with reserved bits", Kind::kBitmapTableEntry, [=](Editor& it) {
    it.put64(table(it), it.get64(table(it)) | 2);
  }).differs = all_else;
  add(path, "unaligned data of a bitmap", Kind::kBitmapTableEntry, [=](Editor& it) {
    it.put64(table(it), 0x30200);
  }).differs = all_else;
  add(path, "data of a bitmap past the end", Kind::kReferenceOutside,
      [=](Editor& it) { it.put64(table(it), uint64_t{1} << 40); });
  add(path, "a bitmap's table past the end", Kind::kReferenceOutside,
      [=](Editor& it) { it.put64(directory(it), uint64_t{1} << 40); });
  add(path, "a bitmap with an unknown flag", Kind::kBitmapDirectoryUnusable,
      [=](Editor& it) { it.put32(directory(it) + 12, 0x80000000); });
  damages_.back().our_code = 1;
  damages_.back().differs = stops;
  add(path, "a bitmap's name that is too long", Kind::kBitmapDirectoryUnusable,
      [=](Editor& it) { it.put32(directory(it) + 16, 0x01100400); });
  damages_.back().our_code = 1;
  damages_.back().differs = stops;
  add(path, "the directory of bitmaps past the end", Kind::kBitmapDirectoryUnusable,
      [=](Editor& it) { it.put64(extension(it) + 16, uint64_t{1} << 40); });
  damages_.back().our_code = 1;
  damages_.back().differs = stops;
  add(path, "65536 bitmaps", Kind::kBitmapDirectoryUnusable,
      [=](Editor& it) { it.put32(extension(it), 65536); });
  damages_.back().our_code = 1;
  damages_.back().differs = stops;
  add(path, "a bitmap of more than 512 MiB", Kind::kBitmapDirectoryUnusable,
      [=](Editor& it) { it.put32(directory(it) + 8, (512 << 20) / kCluster + 1); });
  damages_.back().our_code = 1;
  damages_.back().differs = stops;
  add(path, "a bitmap that does not cover the disk", Kind::kBitmapDirectoryUnusable,
      [](Editor& it) { it.put64(24, 300 * kMiB); });  // granules of 512 bytes, one cluster
  damages_.back().our_code = 1;
  damages_.back().differs = stops;
  add(path, "bitmaps without the autoclear bit", Kind::kLeak,
      [](Editor& it) { it.put64(Editor::kAutoclear, 0); });
  damages_.back().our_code = 3;
  add(path, "a bitmap in use", Kind::kBitmapInUse,
      [=](Editor& it) { it.put32(directory(it) + 12, it.get32(directory(it) + 12) | 1); });
  damages_.back().our_code = 0;
}

void Damages::data_file() {
  const std::string path = folder_ + "/good-data.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + folder_ + "/data.raw",
          path, "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 17 0 192k", path});
  add(path, "data of a data file without COPIED", Kind::kL2Copied,
      [](Editor& it) { it.put64(l2(it), (it.get64(l2(it)) & ~kCopied) | 0x10000); });
  add(path, "data of a data file without COPIED, and no refcounts", Kind::kRefcountBlockUnaligned,
      [](Editor& it) {
        it.put64(l2(it), (it.get64(l2(it)) & ~kCopied) | 0x10000);
        it.put64(reftable(it), refblock(it) + 512);
      })
      .our_code = 1;
  add(path, "a compressed entry in a data file", Kind::kCompressedInDataFile,
      [](Editor& it) { it.put64(l2(it), qcow2::kEntryCompressed | 0x30000); });
  add(path, "unaligned data in a data file", Kind::kDataUnaligned,
      [](Editor& it) { it.put64(l2(it), it.get64(l2(it)) + 512); });
  add(path, "a snapshot with a data file", Kind::kSnapshotsWithDataFile, [](Editor& it) {
    const uint64_t at = (it.bytes().size() + kCluster - 1) / kCluster * kCluster;
    it.bytes().resize(at + kCluster);
    it.put32(at + 36, 16);
    it.put64(Editor::kSnapshotOffset, at);
    it.put32(Editor::kSnapshotCount, 1);
  });
}

void Damages::header() {
  add("the dirty bit", Kind::kDirty, [](Editor& it) {
    it.put64(Editor::kIncompatible, 1);
  }).our_code = 0;
  add("the corrupt bit", Kind::kCorruptBit, [](Editor& it) {
    it.put64(Editor::kIncompatible, 2);
  }).our_code = 0;
  for (const uint32_t length : {0u, UINT32_MAX})
    add(fmt::format("a header length of {}", length), std::nullopt, [&](Editor& it) {
      it.put32(Editor::kHeaderLength, length);
    }).our_code = 1;
  add("an extension of 2^32 - 1 bytes", std::nullopt, [](Editor& it) {
    it.put32(116, UINT32_MAX);
  }).our_code = 1;
  add("an unknown incompatible feature", std::nullopt, [](Editor& it) {
    it.put64(Editor::kIncompatible, uint64_t{1} << 41);
  }).our_code = 1;
  add("an L1 table that is too short", std::nullopt, [](Editor& it) {
    it.put32(Editor::kL1Size, 0);
  }).our_code = 1;
  add("an unaligned L1 table", std::nullopt, [](Editor& it) {
    it.put64(Editor::kL1Offset, l1(it) + 512);
  }).our_code = 1;
  for (const uint64_t at : {uint64_t{1}, uint64_t{512}, kCluster + 8, uint64_t{1} << 63})
    add("no snapshots, at an offset that is none", Kind::kSnapshotOffset, [=](Editor& it) {
      it.put64(Editor::kSnapshotOffset, at);
    }).differs = "qemu-img does not open it";
  add("a raw data file that is not there", Kind::kDataFileRaw, [](Editor& it) {
    it.put64(Editor::kAutoclear, 2);
  }).differs = "qemu-img does not open it";
  add("cut off in the first cluster", Kind::kReferenceOutside,
      [](Editor& it) { it.bytes().resize(600); });
  add("AES", std::nullopt, [](Editor& it) { it.put32(Editor::kCryptMethod, 1); }).differs =
      "qemu-img wants the key; metadata is in the clear";
  damages_.back().our_code = 0;
}

void Damages::widths() {
  for (const unsigned bits : {1, 2, 4, 8, 32, 64}) {
    const std::string path =
        good(fmt::format("width-{}", bits), fmt::format("refcount_bits={}", bits));
    const auto set = [bits](Editor& it, uint64_t cluster, uint64_t count) {
      unsigned order = 0;
      while (1u << order < bits) ++order;
      qcow2::set_refcount(std::span(it.bytes()).subspan(refblock(it), kCluster), cluster, order,
                          count);
    };
    add(path, fmt::format("a count of 0, {} bits", bits), Kind::kRefcountTooLow,
        [&](Editor& it) { set(it, 6, 0); });
    add(path, fmt::format("a leak, {} bits", bits), Kind::kLeak, [&](Editor& it) {
      it.put64(l2(it), 0);
    }).our_code = 3;
    add(path, fmt::format("four times in one place, {} bits", bits),
        bits < 4 ? Kind::kRefcountOverflow : Kind::kRefcountTooLow, [&](Editor& it) {
          for (unsigned i = 0; i < 20; ++i) it.put64(l2(it) + 8 * i, it.get64(l2(it)));
        });
  }
}

}  // namespace

std::vector<Damage> make_damages(const std::string& folder) {
  return Damages(folder).make();
}

}  // namespace vc::checks
