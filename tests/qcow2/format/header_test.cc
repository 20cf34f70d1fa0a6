#include "qcow2/format/header.h"

#include "tests/catch_text.h"
#include "tests/qcow2/tiny_image.h"

using namespace vc;

using namespace qcow2;
using test::TinyImage;

TEST_CASE("a header is read field by field", "[header]") {
  TinyImage image(12, 123 << 12);
  image.put64(80, compatible::kLazyRefcounts);
  image.put64(88, 1ULL << 40);  // an unknown autoclear feature
  const auto header = image.header();
  REQUIRE_OK(header);
  CHECK(header->version == 3);
  CHECK(header->cluster_bits == 12);
  CHECK(header->size == 123 << 12);
  CHECK(header->l1_entries == 1);
  CHECK(header->l1_table == HostOffset(3 << 12));
  CHECK(header->refcount_table == HostOffset(1 << 12));
  CHECK(header->refcount_bits() == 16);
  CHECK(header->compatible_features == compatible::kLazyRefcounts);
  CHECK(header->autoclear_features == 1ULL << 40);
  CHECK(header->backing_file.empty());
  CHECK(header->compression_type == CompressionType::kDeflate);
}

TEST_CASE("version 2 has no feature bits and 16-bit refcounts", "[header]") {
  TinyImage image(16, 1 << 20, 2);
  // In version 2, extensions are where version 3 has features.
  image.put_extension(72, HeaderExtension::kBackingFormat, "raw");
  image.put64(8, 1024);
  image.put32(16, 4);
  image.put_text(1024, "base");
  const auto header = image.header();
  REQUIRE_OK(header);
  CHECK(header->incompatible_features == 0);
  CHECK(header->refcount_order == 4);
  CHECK(header->header_length == Header::kLengthV2);
  CHECK(header->backing_file == "base");
  CHECK(header->backing_format() == "raw");
}

TEST_CASE("unknown extensions and fields are kept", "[header]") {
  TinyImage image;
  image.put32(100, 128);
  image.put64(112, 0x1122334455667788);
  uint64_t at = image.put_extension(128, 0x12345678, "mystery");
  at = image.put_extension(at, HeaderExtension::kDataFile, "disk.raw");
  image.put_extension(at, HeaderExtension::kEnd, "");
  const auto header = image.header();
  REQUIRE_OK(header);
  REQUIRE(header->unknown_fields.size() == 16);
  CHECK(load_be64(header->unknown_fields.data()) == 0x1122334455667788);
  REQUIRE(header->extensions.size() == 2);
  CHECK(header->extensions[0].type == 0x12345678);
  CHECK(header->extensions[0].data.size() == 7);
  CHECK(header->data_file() == "disk.raw");
}

TEST_CASE("other formats are recognised", "[header]") {
  SECTION("empty") {
    MemoryStorage empty("x");
    REQUIRE_FAILS_WITH(Header::read(empty), "the file is empty");
  }
  SECTION("text") {
    TinyImage image;
    image.put_text(0, "Hello");
    REQUIRE_FAILS_WITH(image.header(), "not a QCOW2 image");
  }
  SECTION("VMDK") {
    TinyImage image;
    image.put_text(0, "KDMV");
    REQUIRE_FAILS_WITH(image.header(), "a VMDK one");
  }
  SECTION("VDI") {
    TinyImage image;
    image.put_text(0, "<<< Oracle");
    image.put32(0x40, 0x7f10dabe);
    REQUIRE_FAILS_WITH(image.header(), "a VDI one");
  }
  SECTION("truncated") {
    TinyImage image;
    image.bytes.resize(60);
    REQUIRE_FAILS_WITH(image.header(), "the header is truncated: the file has 60 bytes");
    image.bytes.resize(3);
    REQUIRE_FAILS_WITH(image.header(), "not a QCOW2 image");
  }
  SECTION("other versions") {
    TinyImage image;
    image.put32(4, 1);
    REQUIRE_FAILS_WITH(image.header(), "QCOW version 1");
    image.put32(4, 4);
    REQUIRE_FAILS_WITH(image.header(), "QCOW version 4");
  }
}

TEST_CASE("fields outside of their limits are refused", "[header]") {
  TinyImage image;
  const auto refused = [&](const char* why) { REQUIRE_FAILS_WITH(image.header(), why); };
  SECTION("cluster_bits") {
    image.put32(20, GENERATE(0u, 8u, 22u, 64u, 0xffffffffu));
    refused("cluster_bits");
  }
  SECTION("header_length") {
    image.put32(100, GENERATE(0u, 72u, 100u, 108u + 1, 65536u + 8, 0xffffffffu));
    refused("header_length");
  }
  SECTION("refcount_order") {
    image.put32(96, GENERATE(7u, 0xffffffffu));
    refused("refcount_order");
  }
  SECTION("L1 too small for the disk") {
    image.put64(24, (1ULL << 29) + 1);
    refused("needs 2");
  }
  SECTION("disk size whose L1 size overflows") {
    image.put64(24, UINT64_MAX);
    refused("the L1 table has 1 entries");
  }
  SECTION("L1 too large") {
    image.put32(36, GENERATE((32u << 20) / 8 + 1, 0xffffffffu));
    refused("the L1 table has");
  }
  SECTION("L1 table unaligned, or past the largest file offset") {
    image.put64(40, GENERATE(0x30008ULL, 0x7fffffffffff0000ULL | 8, 0xffffffffffff0000ULL));
    refused("the L1 table at");
  }
  SECTION("refcount table") {
    image.put32(56, GENERATE(129u, 0xffffffffu));
    refused("the refcount table has");
  }
  SECTION("no refcount table") {
    image.put32(56, 0);
    refused("no refcount table");
  }
  SECTION("unaligned refcount table") {
    image.put64(48, 0x10001);
    refused("the refcount table at");
  }
  SECTION("snapshots") {
    image.put32(60, GENERATE(65537u, 0xffffffffu));
    refused("snapshots");
  }
  SECTION("unaligned snapshot table") {
    image.put32(60, 1);
    image.put64(64, 12);
    refused("the snapshot table at");
  }
  SECTION("backing file name") {
    image.put64(8, 200);
    image.put32(16, GENERATE(1024u, 0xffffffffu));
    refused("too many");
  }
  SECTION("backing file name past the first cluster") {
    image.put64(8, 65537);
    image.put32(16, 1);
    refused("past the first cluster");
  }
  SECTION("backing file name that would cross its end") {
    image.put64(8, 65535);
    image.put32(16, 2);
    refused("too many");
  }
  SECTION("NUL in the backing file name, before its end") {
    image.put64(8, 200);
    image.put32(16, 3);
    image.put_text(200, std::string_view("a\0b", 3));
    refused("NUL");
  }
}

TEST_CASE("a backing file name ends where its padding begins", "[header]") {
  TinyImage image;
  image.put64(8, 200);
  image.put32(16, 5);
  image.put_text(200, std::string_view("ab\0\0\0", 5));
  CHECK(image.header()->backing_file == "ab");
  image.put_text(200, std::string_view("\0\0\0\0\0", 5));
  CHECK(image.header()->backing_file.empty());
}

TEST_CASE("extensions are bounded", "[header]") {
  TinyImage image;
  SECTION("longer than the cluster") {
    image.put32(112, 0x12345678);
    image.put32(116, GENERATE(0xffffffffu, 65536u - 119));
    REQUIRE_FAILS_WITH(image.header(), "has a length of");
  }
  SECTION("longer than the space before the backing file name") {
    image.put_extension(112, 0x12345678, "0123456789");
    image.put64(8, 126);
    image.put32(16, 1);
    REQUIRE_FAILS_WITH(image.header(), "has a length of 10, but only 6");
  }
  SECTION("truncated by the backing file name") {
    image.put64(8, 116);
    image.put32(16, 1);
    REQUIRE_FAILS_WITH(image.header(), "truncated");
  }
}

TEST_CASE("unknown incompatible features are named by the image's own table", "[header]") {
  TinyImage image;
  image.set_incompatible((1ULL << 7) | (1ULL << 63));
  std::string table(2 * 48, '\0');
  table[1] = 7;  // type 0 (incompatible), bit 7
  table.replace(2, 12, "time travel\n");
  table[48] = 1;  // compatible: another type
  table[49] = 63;
  table.replace(50, 5, "wrong");
  image.put_extension(112, HeaderExtension::kFeatureNames, table);
  const auto header = image.header();
  REQUIRE_FAILS_WITH(header, "'time travel\\x0a', unknown incompatible feature 63");
  CHECK(header.error().kind() == Error::Kind::kUnsupported);
}

TEST_CASE("encryption is refused by name", "[header]") {
  TinyImage image;
  image.put32(32, 1);
  REQUIRE_FAILS_WITH(image.header(), "AES");
  image.put32(32, 2);
  REQUIRE_FAILS_WITH(image.header(), "LUKS");
  image.put32(32, 3);
  REQUIRE_FAILS_WITH(image.header(), "unknown encryption method 3");
}

TEST_CASE("compression type and its feature bit must agree", "[header]") {
  TinyImage image;
  image.put8(104, 1);
  REQUIRE_FAILS_WITH(image.header(), "feature bit is clear");
  image.set_incompatible(incompatible::kCompressionType);
  const auto header = image.header();
  REQUIRE_OK(header);
  CHECK(header->compression_type == CompressionType::kZstd);
  image.put8(104, 0);
  REQUIRE_FAILS_WITH(image.header(), "feature bit is set");
  image.put8(104, 2);
  REQUIRE_FAILS_WITH(image.header(), "unknown compression type 2");
}

TEST_CASE("extended L2 entries need clusters of 16 KiB", "[header]") {
  TinyImage small(13);
  small.set_incompatible(incompatible::kExtendedL2);
  REQUIRE_FAILS_WITH(small.header(), "16 KiB at least");
  TinyImage enough(14);
  enough.set_incompatible(incompatible::kExtendedL2);
  REQUIRE_OK(enough.header());
}

TEST_CASE("dirty and corrupt images can be read", "[header]") {
  TinyImage image;
  image.set_incompatible(incompatible::kDirty | incompatible::kCorrupt);
  REQUIRE_OK(image.header());
}
