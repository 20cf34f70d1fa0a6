#include "tests/interop/bad_images.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <stdexcept>

#include "qcow2/format/l2_entry.h"
#include "tests/interop/image_editor.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::interop {

using support::run_ok;

namespace {

using Editor = ImageEditor;
using Edit = std::function<void(Editor&)>;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kCluster = 64 << 10;

class BadImages {
 public:
  explicit BadImages(std::string folder) : folder_(std::move(folder)) {
    make_good(good_v3_, "compat=1.1");
    make_good(good_v2_, "compat=0.10");
  }

  std::vector<BadImage> make() {
    special_files();
    foreign_formats();
    truncated();
    header_fields();
    extensions();
    encryption();
    tables();
    snapshots();
    backing_files();
    data_files();
    return std::move(images_);
  }

 private:
  BadImage& add(const std::string& name, const std::string& says) {
    BadImage image;
    image.name = name;
    image.says = says;
    image.path = fmt::format("{}/bad{}", folder_, images_.size());
    images_.push_back(std::move(image));
    return images_.back();
  }
  // Adds a valid image with a change.
  BadImage& edited(const std::string& name, const std::string& says, const Edit& edit) {
    return edited_from(good_v3_, name, says, edit);
  }
  BadImage& edited_from(const std::string& good, const std::string& name, const std::string& says,
                        const Edit& edit) {
    BadImage& image = add(name, says);
    Editor editor(good);
    edit(editor);
    editor.save_as(image.path);
    return image;
  }
  static void make_good(const std::string& path, const std::string& options);

  void special_files();
  void foreign_formats();
  void truncated();
  void header_fields();
  void extensions();
  void encryption();
  void tables();
  void snapshots();
  void backing_files();
  void data_files();

  const std::string folder_;
  const std::string good_v3_ = folder_ + "/good.qcow2";
  const std::string good_v2_ = folder_ + "/good-v2.qcow2";
  std::vector<BadImage> images_;
};

// 64 KiB clusters: header, refcount table, refcount block, L1 table, L2 table, data, compressed.
void BadImages::make_good(const std::string& path, const std::string& options) {
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "4M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 17 0 192k", "-c", "write -q -c -P 19 3M 64k",
          path});
}

void BadImages::special_files() {
  // QEMU accepts an empty file as an empty raw disk.
  BadImage& empty = add("an empty file", "empty");
  support::write_file(empty.path, std::string());
  empty.qemu_refuses = false;
  std::filesystem::create_directory(add("a directory", "directory").path);
  BadImage& fifo = add("a FIFO", "FIFO");
  fifo.ask_qemu = false;
  if (::mkfifo(fifo.path.c_str(), 0600) != 0) throw std::runtime_error("mkfifo");
  add("no file at all", "No such file");
  BadImage& loop = add("a symbolic link to itself", "symbolic links");
  std::filesystem::create_symlink(loop.path, loop.path);
  BadImage& device = add("a character device", "character device");
  std::filesystem::create_symlink("/dev/zero", device.path);
  device.ask_qemu = false;

  BadImage& socket = add("a socket", "socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.path.size() >= sizeof address.sun_path) throw std::runtime_error("path too long");
  std::memcpy(address.sun_path, socket.path.c_str(), socket.path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  ::close(fd);
  if (bound != 0) throw std::runtime_error("bind");
}

void BadImages::foreign_formats() {
  for (const char* format : {"vmdk", "vhdx", "vdi", "qed", "vpc", "parallels"}) {
    BadImage& image = add(std::string("a ") + format + " image", "");
    image.qemu_refuses = false;
    run_ok({"qemu-img", "create", "-q", "-f", format, image.path, "4M"});
  }
  BadImage& png = add("a picture, said to be qcow2", "not a QCOW2 image");
  png.format = qcow2::Format::kQcow2;
  support::write_file(png.path, "\x89PNG\r\n\x1a\n" + std::string(5000, 'p'));
  BadImage& qcow1 = edited("QCOW version 1", "version 1", [](Editor& it) { it.put32(4, 1); });
  qcow1.qemu_refuses = true;
}

void BadImages::truncated() {
  const Editor good(good_v3_);
  const uint64_t l1 = good.get64(Editor::kL1Offset);
  const uint64_t l2 = good.l2_entry_at(0);
  const uint64_t data = good.get64(good.l2_entry_at(0)) & qcow2::kEntryOffsetMask;
  const auto cut = [&](uint64_t length, const std::string& says, bool qemu_refuses) {
    edited(fmt::format("cut off at {}", length), says, [&](Editor& it) {
      it.bytes().resize(length);
    }).qemu_refuses = qemu_refuses;
  };
  // QEMU takes this file for a raw disk.
  cut(4, "truncated", false);
  for (const uint64_t length : {8, 71, 72, 100, 103}) cut(length, "truncated", true);
  // The header is there, the rest is missing. QEMU reads zeros past the end of the file, so it
  // takes the disk for empty.
  for (const uint64_t length : {uint64_t{112}, uint64_t{600}, kCluster, l1})
    cut(length, "L1 table", false);
  cut(l1 + 4, "L1 table", false);
  cut(l2, "L2 table", false);
  cut(l2 + 16, "L2 table", false);
  cut(data, "truncated", true);
  cut(data + kCluster, "truncated", true);
  cut(data + 2 * kCluster, "truncated", true);
  // Only the compressed stream is missing, which QEMU needs.
  cut(data + 3 * kCluster, "truncated", true);
}

void BadImages::header_fields() {
  const auto field32 = [&](uint64_t at, uint32_t value, const std::string& says) -> BadImage& {
    return edited(fmt::format("header bytes {}: {:#x}", at, value), says,
                  [&](Editor& it) { it.put32(at, value); });
  };
  const auto field64 = [&](uint64_t at, uint64_t value, const std::string& says) -> BadImage& {
    return edited(fmt::format("header bytes {}: {:#x}", at, value), says,
                  [&](Editor& it) { it.put64(at, value); });
  };
  field32(Editor::kVersion, 4, "version 4");
  for (const uint32_t bits : {0u, 8u, 22u, 64u, UINT32_MAX})
    field32(Editor::kClusterBits, bits, "cluster_bits");
  for (const uint32_t length : {0u, 96u, 0x20000u, UINT32_MAX})
    field32(Editor::kHeaderLength, length, "header_length");
  for (const uint32_t order : {7u, 64u, UINT32_MAX})
    field32(Editor::kRefcountOrder, order, "refcount_order");
  field32(Editor::kCryptMethod, 3, "encryption");

  field64(Editor::kSize, uint64_t{1} << 40, "L1 table");
  field64(Editor::kSize, uint64_t{1} << 63, "L1 table");
  field64(Editor::kSize, UINT64_MAX, "L1 table");
  for (const uint32_t entries : {0u, (4u << 20) + 1, UINT32_MAX})
    field32(Editor::kL1Size, entries, "L1 table");
  // The largest permitted size, but the table is missing.
  field32(Editor::kL1Size, 4u << 20, "L1 table").qemu_refuses = false;
  field64(Editor::kL1Offset, uint64_t{1} << 50, "L1 table").qemu_refuses = false;
  for (const uint64_t at : {uint64_t{0x30200}, uint64_t{1} << 63, UINT64_MAX, UINT64_MAX << 16})
    field64(Editor::kL1Offset, at, "L1 table");

  for (const uint64_t at : {uint64_t{0x10001}, uint64_t{1} << 63, UINT64_MAX << 16})
    field64(Editor::kRefcountTableOffset, at, "refcount table");
  for (const uint32_t clusters : {0u, 129u, UINT32_MAX})
    field32(Editor::kRefcountTableClusters, clusters, "refcount table");

  edited("a backing file name of 2^32 - 1 bytes", "backing file name", [](Editor& it) {
    it.put64(Editor::kBackingOffset, 0x400);
    it.put32(Editor::kBackingLength, UINT32_MAX);
  });
  edited("a backing file name of 1024 bytes", "backing file name", [](Editor& it) {
    it.put64(Editor::kBackingOffset, 0x400);
    it.put32(Editor::kBackingLength, 1024);
  });
  edited("a backing file name past the first cluster", "backing file name", [](Editor& it) {
    it.put64(Editor::kBackingOffset, kCluster + 8);
    it.put32(Editor::kBackingLength, 10);
  });

  field32(Editor::kCompressionType, 0x02000000, "compression type");
  field32(Editor::kCompressionType, 0x01000000, "compression type");
  edited("the compression bit, and zlib", "compression type",
         [](Editor& it) { it.put64(Editor::kIncompatible, 8); });
  const std::string small = folder_ + "/small-clusters.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", small, "1M"});
  edited_from(small, "extended L2 entries and clusters of 4 KiB", "xtended L2",
              [](Editor& it) { it.put64(Editor::kIncompatible, 16); });
}

void BadImages::extensions() {
  edited("an extension of 2^32 - 1 bytes", "extension",
         [](Editor& it) { it.put32(116, UINT32_MAX); });

  const auto feature = [](unsigned char bit, const std::string& name) {
    std::string entry{'\0', static_cast<char>(bit)};
    entry += name;
    entry.resize(48, '\0');
    return entry;
  };
  edited("an unknown incompatible feature with a name", "entangled clusters", [&](Editor& it) {
    const std::string table = feature(5, "something else") + feature(41, "entangled clusters");
    const auto bytes = std::as_bytes(std::span(table));
    it.put_extensions(112, {{0x6803f857, {bytes.begin(), bytes.end()}}});
    it.put64(Editor::kIncompatible, uint64_t{1} << 41);
  });
  edited("an unknown incompatible feature without a name", "41",
         [](Editor& it) { it.put64(Editor::kIncompatible, uint64_t{1} << 41); });
}

void BadImages::encryption() {
  BadImage& luks = add("LUKS", "LUKS");
  // qemu-img measures the time of its key derivation, and gives up if the clock did not advance
  // during the first iterations: SHA-512 is slow enough in most cases.
  for (unsigned attempt = 0;; ++attempt) {
    const auto made = support::run({"qemu-img", "create", "-q", "-f", "qcow2", "--object",
                                    "secret,id=s,data=geheim", "-o",
                                    "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,"
                                    "encrypt.hash-alg=sha512",
                                    luks.path, "1M"});
    if (made.ok()) break;
    if (attempt == 200) throw std::runtime_error("no LUKS image: " + made.describe());
  }
  edited("AES", "AES", [](Editor& it) { it.put32(Editor::kCryptMethod, 1); });
}

void BadImages::tables() {
  const auto l1 = [&](uint64_t entry, const std::string& says, bool qemu_refuses) {
    edited(fmt::format("L1 entry {:#x}", entry), says, [&](Editor& it) {
      it.put64(it.l1_entry_at(0), entry);
    }).qemu_refuses = qemu_refuses;
  };
  l1(qcow2::kEntryCopied | 0x40200, "L2 table", true);
  // Past the end of the file, QEMU reads an L2 table of zeros.
  l1(qcow2::kEntryCopied | uint64_t{1} << 40, "L2 table", false);
  l1(0x00ffffffffff0000, "L2 table", false);

  const auto l2 = [&](uint64_t entry, const std::string& says, bool qemu_refuses) {
    edited(fmt::format("L2 entry {:#x}", entry), says, [&](Editor& it) {
      it.put64(it.l2_entry_at(kCluster), entry);
    }).qemu_refuses = qemu_refuses;
  };
  l2(qcow2::kEntryCopied | 0x50200, "start of a cluster", true);
  l2(0xbfffffffffff0000, "", false);
  l2(qcow2::kEntryCopied | uint64_t{1} << 45, "truncated", false);
  l2(qcow2::kEntryCopied | uint64_t{1} << 55, "truncated", false);
  l2(0x00fffffffffffe00, "start of a cluster", true);
  // Compressed clusters: past the end, at bytes that are not a stream, and at the largest offset.
  l2(qcow2::kEntryCompressed | uint64_t{1} << 40, "compressed", true);
  l2(qcow2::kEntryCompressed | 0x30000, "compressed", true);
  l2(qcow2::kEntryCompressed | ((uint64_t{1} << 62) - 1), "compressed", true);

  edited("a compressed stream that ends early", "compressed", [](Editor& it) {
    const auto stream = qcow2::CompressedDescriptor::decode(it.get64(it.l2_entry_at(3 * kMiB)), 16);
    it.bytes().resize(stream.offset.value() + 8);
  });
  edited("a damaged compressed stream", "compressed", [](Editor& it) {
    const auto stream = qcow2::CompressedDescriptor::decode(it.get64(it.l2_entry_at(3 * kMiB)), 16);
    it.put64(stream.offset.value(), UINT64_MAX);
  });
  edited_from(good_v2_, "a zero cluster in version 2", "version 2", [](Editor& it) {
    const uint64_t at = it.l2_entry_at(0);
    it.put64(at, it.get64(at) | 1);
  });

  const std::string extended = folder_ + "/extended.qcow2";
  make_good(extended, "extended_l2=on");
  edited_from(extended, "a subcluster both zero and allocated", "subcluster",
              [](Editor& it) { it.put64(it.l2_entry_at(0) + 8, 0x0000000100000001); });
  edited_from(extended, "an allocated subcluster nowhere", "subcluster",
              [](Editor& it) { it.put64(it.l2_entry_at(0), 0); });
}

void BadImages::snapshots() {
  const std::string good = folder_ + "/snapshot.qcow2";
  make_good(good, "compat=1.1");
  run_ok({"qemu-img", "snapshot", "-q", "-c", "one", good});
  const auto edit = [&](const std::string& name, const std::string& says,
                        const Edit& change) -> BadImage& {
    return edited_from(good, name, says, change);
  };
  edit("2^32 - 1 snapshots", "snapshots",
       [](Editor& it) { it.put32(Editor::kSnapshotCount, UINT32_MAX); });
  edit("a snapshot table that does not begin at a cluster", "snapshot table", [](Editor& it) {
    it.put64(Editor::kSnapshotOffset, it.get64(Editor::kSnapshotOffset) + 8);
  });
  edit("a snapshot table past the end", "snapshot", [](Editor& it) {
    it.put64(Editor::kSnapshotOffset, uint64_t{1} << 40);
  }).qemu_refuses = false;
  edit("a snapshot with 2 GiB of extra data", "snapshot",
       [](Editor& it) { it.put32(it.get64(Editor::kSnapshotOffset) + 36, uint32_t{1} << 31); });
  // QEMU reads the L1 table of a snapshot only when the snapshot is used.
  edit("a snapshot whose L1 table has 2^32 - 1 entries", "snapshot", [](Editor& it) {
    it.put32(it.get64(Editor::kSnapshotOffset) + 8, UINT32_MAX);
  }).qemu_refuses = false;
  edit("a snapshot whose L1 table does not begin at a cluster", "snapshot", [](Editor& it) {
    it.put64(it.get64(Editor::kSnapshotOffset), 0x30008);
  }).qemu_refuses = false;
}

void BadImages::backing_files() {
  namespace fs = std::filesystem;
  // Made with -u, since qemu-img create would look for the backing file.
  const auto with_backing = [&](const std::string& name, const std::string& backing,
                                const std::string& format, const std::string& says) -> BadImage& {
    BadImage& image = add(name, says);
    run_ok({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format,
            image.path, "4M"});
    return image;
  };
  with_backing("a backing file that is not there", "nowhere.qcow2", "qcow2", "No such file")
      .names_file = "nowhere.qcow2";
  with_backing("a backing file whose folder is not there", "no/where.qcow2", "qcow2",
               "No such file")
      .names_file = "no/where.qcow2";
  with_backing("a backing file that is a folder", ".", "raw", "directory");
  with_backing("a json: backing file that is on a web server",
               R"(json:{"driver":"qcow2","file":{"driver":"https","url":"https://127.0.0.1:1/x"}})",
               "qcow2", "only files are supported");
  with_backing("an nbd: backing file", "nbd:unix:/nowhere/socket", "raw", "nbd");
  with_backing("an nbd:// backing file", "nbd://127.0.0.1:1/x", "raw", "nbd");
  with_backing("a backing file of an unknown format", "good.qcow2", "vmdk", "vmdk");
  with_backing("a raw backing file said to be qcow2", "small-raw", "qcow2", "not a QCOW2 image")
      .names_file = "small-raw";
  support::write_file(folder_ + "/small-raw", std::string(70000, 'r'));

  BadImage& self = with_backing("its own backing file", "x", "qcow2", "");
  fs::remove(self.path);
  const std::string own = fs::path(self.path).filename().string();
  run_ok(
      {"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", own, "-F", "qcow2", self.path, "4M"});
  self.says = "chain";
  self.ask_qemu = false;

  BadImage& first = add("a backing chain that comes back to the first", "chain");
  first.names_file = "alias-of-first.qcow2";
  first.ask_qemu = false;
  const std::string second = folder_ + "/second-of-loop.qcow2";
  run_ok({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "second-of-loop.qcow2", "-F",
          "qcow2", first.path, "4M"});
  // Another name of the same file.
  fs::create_symlink(first.path, folder_ + "/alias-of-first.qcow2");
  run_ok({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "alias-of-first.qcow2", "-F",
          "qcow2", second, "4M"});

  BadImage& damaged = with_backing("a damaged image behind it", "damaged.qcow2", "qcow2", "L1");
  damaged.names_file = "damaged.qcow2";
  Editor broken(good_v3_);
  broken.put32(Editor::kL1Size, UINT32_MAX);
  broken.save_as(folder_ + "/damaged.qcow2");
}

void BadImages::data_files() {
  BadImage& missing = add("its external data file is gone", "data file");
  const std::string data = folder_ + "/data-gone";
  run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + data, missing.path, "1M"});
  std::filesystem::remove(data);
  missing.names_file = "data-gone";

  BadImage& compressed = add("a compressed cluster beside an external data file", "compressed");
  const std::string there = folder_ + "/data-there";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + there, compressed.path,
          "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 64k", compressed.path});
  Editor editor(compressed.path);
  editor.put64(editor.l2_entry_at(0), qcow2::kEntryCompressed | 0x50000);
  editor.save();

  edited("an external data file without a name", "data file",
         [](Editor& it) { it.put64(Editor::kIncompatible, 4); });
}

}  // namespace

std::vector<BadImage> make_bad_images(const std::string& folder) {
  return BadImages(folder).make();
}

}  // namespace vc::interop
