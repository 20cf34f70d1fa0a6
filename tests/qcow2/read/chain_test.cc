#include "qcow2/read/chain.h"
#include "qcow2/write/chain_writer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "qcow2/build/create_image.h"
#include "tests/catch_text.h"
#include "tests/qcow2/tiny_image.h"
#include "tests/support/scratch_folder.h"

using namespace vc;

using namespace qcow2;
using test::TinyImage;

namespace {

void write(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

TinyImage overlay(std::string_view backing, std::string_view format = "") {
  TinyImage image(12, 4 * 4096);
  image.put64(8, 1024);
  image.put32(16, static_cast<uint32_t>(backing.size()));
  image.put_text(1024, backing);
  if (!format.empty()) image.put_extension(112, HeaderExtension::kBackingFormat, format);
  return image;
}

TinyImage base(uint8_t value) {
  TinyImage image(12, 4 * 4096);
  image.set_l2(0, image.cluster(5));
  image.fill(image.cluster(5), 4096, value);
  return image;
}

Result<std::byte> first_byte(const std::string& path, const OpenOptions& options = {}) {
  ASSIGN_OR_RETURN(const Chain chain, Chain::open(path, options));
  ASSIGN_OR_RETURN(const auto bytes, test::read(chain.disk(), 0, 1));
  return bytes[0];
}

}  // namespace

TEST_CASE("names resolve as QEMU resolves them", "[chain]") {
  CHECK(resolve_name("disk.qcow2", "base") == "base");
  CHECK(resolve_name("a/b/disk.qcow2", "base") == "a/b/base");
  CHECK(resolve_name("a/b/disk.qcow2", "../base") == "a/b/../base");
  CHECK(resolve_name("/x/disk.qcow2", "/y/base") == "/y/base");
  CHECK(resolve_name("a/disk.qcow2", "file:base") == "base");
  CHECK(resolve_name("a/disk.qcow2", "file:/y/base") == "/y/base");
  CHECK(resolve_name("a/disk.qcow2", "./odd:name") == "a/./odd:name");
  for (const char* name :
       {"nbd:localhost:10809", "nbd://host/x", "https://h/x", "nbd+unix:///?socket=s", "fat:/x"})
    REQUIRE_FAILS_WITH(resolve_name("disk.qcow2", name), "not supported");
  CHECK_FALSE(resolve_name("disk.qcow2", "").has_value());
  for (const char* name :
       {R"(json:{"driver":"qcow2","file":{"driver":"file","filename":"b"}})",
        R"(json:{"driver":"file","filename":"b"})", R"(json:{"file.filename":"b"})"})
    CHECK(resolve_name("a/disk.qcow2", name) == "b");
  REQUIRE_FAILS_WITH(resolve_name("a/disk.qcow2", "json:{}"), "file.filename is missing");
  REQUIRE_FAILS_WITH(resolve_name("a/disk.qcow2", "json:{"), "not a JSON object");
  REQUIRE_FAILS_WITH(resolve_name("a/disk.qcow2", R"(json:{"driver":"nbd","host":"h"})"), "nbd");
  REQUIRE_FAILS_WITH(
      resolve_name("a/disk.qcow2", R"(json:{"driver":"raw","offset":1,"file.filename":"b"})"),
      "'offset' is not supported");
}

TEST_CASE("relative names follow the path that the image was opened by", "[chain]") {
  const test::ScratchFolder folder;
  std::filesystem::create_directory(folder / "sub");
  write(folder / "base", base(0x11).bytes);
  write(folder / "sub/base", base(0x22).bytes);
  write(folder / "sub/top", overlay("base", "qcow2").bytes);
  CHECK(first_byte(folder / "sub/top") == std::byte{0x22});
  // A relative name is resolved in the link's folder, not in its target's.
  std::filesystem::create_symlink("sub/top", folder / "link");
  CHECK(first_byte(folder / "link") == std::byte{0x11});
}

TEST_CASE("a chain of 200 images is read, and one of more is refused", "[chain]") {
  const test::ScratchFolder folder;
  write(folder / "1", base(0x11).bytes);
  for (int i = 2; i <= 201; ++i)
    write(folder / std::to_string(i), overlay(std::to_string(i - 1), "qcow2").bytes);
  CHECK(first_byte(folder / "200") == std::byte{0x11});
  REQUIRE_FAILS_WITH(Chain::open(folder / "201", {}),
                     "201 has more than 200 images: shorten it first");
}

TEST_CASE("formats come from the header, or from the content", "[chain]") {
  const test::ScratchFolder folder;
  write(folder / "base", base(0x11).bytes);
  SECTION("recorded format") {
    // A QCOW2 file opened as raw is just bytes.
    write(folder / "top", overlay("base", "raw").bytes);
    CHECK(first_byte(folder / "top") == std::byte{'Q'});
  }
  SECTION("detected format") {
    write(folder / "top", overlay("base").bytes);
    CHECK(first_byte(folder / "top") == std::byte{0x11});
  }
  SECTION("unsupported format") {
    write(folder / "top", overlay("base", "vmdk").bytes);
    REQUIRE_FAILS_WITH(first_byte(folder / "top"),
                       "top: backing file 'base': its format is 'vmdk'");
  }
  SECTION("another image format is not taken for a raw disk") {
    std::ofstream(folder / "base") << "KDMV" << std::string(600, 'x');
    write(folder / "top", overlay("base").bytes);
    REQUIRE_FAILS_WITH(first_byte(folder / "top"), "base: looks like a VMDK image");
  }
  SECTION("of the top image") {
    OpenOptions options;
    options.format = Format::kRaw;
    CHECK(first_byte(folder / "base", options) == std::byte{'Q'});
    std::ofstream(folder / "raw") << "not an image";
    options.format = Format::kQcow2;
    REQUIRE_FAILS_WITH(first_byte(folder / "raw", options), "raw: not a QCOW2 image");
    CHECK(first_byte(folder / "raw") == std::byte{'n'});
  }
}

TEST_CASE("the error for a broken chain names the file", "[chain]") {
  const test::ScratchFolder folder;
  SECTION("missing") {
    write(folder / "top", overlay("gone").bytes);
    REQUIRE_FAILS_WITH(first_byte(folder / "top"),
                       "top: backing file: " + (folder / "gone") + ": No such file");
  }
  SECTION("a name of the image itself") {
    write(folder / "top", overlay("top").bytes);
    REQUIRE_FAILS_WITH(first_byte(folder / "top"), "it has no end");
  }
  SECTION("a loop through other names") {
    write(folder / "a", overlay("b").bytes);
    write(folder / "b", overlay("c").bytes);
    REQUIRE(link((folder / "a").c_str(), (folder / "c").c_str()) == 0);
    REQUIRE_FAILS_WITH(first_byte(folder / "a"), "it has no end");
  }
  SECTION("a FIFO") {
    REQUIRE(mkfifo((folder / "fifo").c_str(), 0600) == 0);
    write(folder / "top", overlay("fifo").bytes);
    REQUIRE_FAILS_WITH(first_byte(folder / "top"), "is a FIFO");
  }
  SECTION("a protocol") {
    write(folder / "top", overlay("nbd://localhost/x").bytes);
    REQUIRE_FAILS_WITH(first_byte(folder / "top"), "(nbd:) are not supported");
  }
  SECTION("denied") {
    write(folder / "base", base(1).bytes);
    write(folder / "top", overlay("base").bytes);
    OpenOptions options;
    options.trust.names.backing = NameRule::kDeny;
    REQUIRE_FAILS_WITH(first_byte(folder / "top", options), "not allowed");
    REQUIRE_OK(first_byte(folder / "base", options));
  }
  SECTION("a data file without a name") {
    TinyImage image(12, 4096);
    image.set_incompatible(incompatible::kDataFile);
    write(folder / "top", image.bytes);
    REQUIRE_FAILS_WITH(first_byte(folder / "top"), "does not name it");
  }
  SECTION("a missing data file") {
    TinyImage image(12, 4096);
    image.set_incompatible(incompatible::kDataFile);
    image.put_extension(112, HeaderExtension::kDataFile, "disk.raw");
    write(folder / "top", image.bytes);
    REQUIRE_FAILS_WITH(first_byte(folder / "top"), "external data file: " + (folder / "disk.raw"));
  }
  SECTION("a data file that is denied") {
    TinyImage image(12, 4096);
    image.set_incompatible(incompatible::kDataFile);
    image.put_extension(112, HeaderExtension::kDataFile, "disk.raw");
    write(folder / "top", image.bytes);
    write(folder / "disk.raw", std::vector<std::byte>(4096));
    REQUIRE_OK(first_byte(folder / "top"));
    OpenOptions options;
    options.trust.names.backing = NameRule::kDeny;
    REQUIRE_FAILS_WITH(first_byte(folder / "top", options),
                       "'disk.raw': the image names this file");
  }
  SECTION("an empty file") {
    write(folder / "top", {});
    REQUIRE_FAILS_WITH(first_byte(folder / "top"), "the file is empty");
  }
}

TEST_CASE("a snapshot is a disk of its own size", "[chain]") {
  const test::ScratchFolder folder;
  TinyImage image = base(0x11);
  // One snapshot: its entry is in cluster 7, its L1 table in cluster 6. It shares the L2 table.
  const uint64_t entry = image.cluster(7);
  image.put32(60, 1);
  image.put64(64, entry);
  image.put64(entry, image.cluster(6));
  image.put32(entry + 8, 1);
  image.put16(entry + 12, 1);
  image.put16(entry + 14, 4);
  image.put32(entry + 36, 16);
  image.put64(entry + 48, 2 * 4096);
  image.put_text(entry + 56, "1then");
  image.put64(image.cluster(6), image.cluster(4));
  write(folder / "top", image.bytes);

  const auto chain = Chain::open(folder / "top", {});
  REQUIRE_OK(chain);
  const auto then = chain->snapshot("then");
  REQUIRE_OK(then);
  CHECK(then->size() == 2 * 4096);
  CHECK(test::all_are(*test::read(*then, 0, 4096), 0x11));
  REQUIRE_OK(chain->snapshot("1"));
  REQUIRE_FAILS_WITH(chain->snapshot("now"), "there is no snapshot 'now'");

  std::ofstream(folder / "raw") << "raw";
  const auto raw = Chain::open(folder / "raw", {});
  REQUIRE_OK(raw);
  REQUIRE_FAILS_WITH(raw->snapshot("then"), "a raw file has no snapshot");
}

TEST_CASE("a chain is locked as it is used", "[chain]") {
  const test::ScratchFolder folder;
  const std::string path = folder / "disk";
  BuildOptions fresh;
  fresh.size = 1 << 20;
  REQUIRE_OK(create_image(path, fresh));
  OpenOptions writable;
  writable.writable = true;
  const auto first = Chain::open(path, writable);
  REQUIRE_OK(first);
  {
    // A process that may write later, but does not write yet, does not exclude readers.
    const auto second = Chain::open(path, writable);
    REQUIRE_OK(second);
    REQUIRE_FAILS_WITH(open_writer(*first, {}), "which allows no other writer: shut it down");
    REQUIRE_FAILS_WITH(open_writer(*second, {}), "which allows no other writer: shut it down");
  }
  REQUIRE_OK(open_writer(*first, {}));
  OpenOptions shared;
  REQUIRE_FAILS_WITH(Chain::open(path, shared), "which writes to it: shut it down first");
  shared.force_share_option = "this";
  REQUIRE_FAILS_WITH(Chain::open(path, shared), "shut it down first, or read it anyway with this");
  shared.force_share = true;
  const auto reader = Chain::open(path, shared);
  REQUIRE_OK(reader);
  REQUIRE_FAILS_WITH(open_writer(*reader, {}), "it can only be read");
}

TEST_CASE("an image that cannot be written can still be read", "[chain]") {
  const test::ScratchFolder folder;
  const std::string path = folder / "disk";
  TinyImage image = base(1);
  image.set_incompatible(incompatible::kCorrupt);
  write(path, image.bytes);
  OpenOptions writable;
  writable.writable = true;
  const auto chain = Chain::open(path, writable);
  REQUIRE_OK(chain);
  REQUIRE_FAILS_WITH(open_writer(*chain, {}), "corrupt");
  REQUIRE_OK(Chain::open(path, {}));
}

TEST_CASE("an image and its data file are locked together", "[chain]") {
  const test::ScratchFolder folder;
  const std::string path = folder / "disk";
  TinyImage image(12, 4096);
  image.set_incompatible(incompatible::kDataFile);
  image.put_extension(112, HeaderExtension::kDataFile, "data");
  write(path, image.bytes);
  write(folder / "data", std::vector<std::byte>(4096));
  OpenOptions writable;
  writable.writable = true;
  const auto chain = Chain::open(path, writable);
  REQUIRE_OK(chain);
  {
    // Another process reads only the data file.
    OpenOptions raw;
    raw.format = Format::kRaw;
    const auto data = Chain::open(folder / "data", raw);
    REQUIRE_OK(data);
    REQUIRE_FAILS_WITH(open_writer(*chain, {}), folder / "data" + ": is in use by ");
    // The lock on the image itself was released.
    REQUIRE_OK(Chain::open(path, {}));
  }
}
