#include "tests/catch.h"

#include "qcow2/read/image_limits.h"

#include "qcow2/format/l2_entry.h"
#include "tests/catch_text.h"
#include "tests/qcow2/tiny_image.h"

using namespace vc;

using namespace qcow2;
using test::TinyImage;

namespace {

constexpr uint64_t kCopied = uint64_t{1} << 63;

// With 2 MiB clusters, one L2 table maps 512 GiB.
TinyImage large(uint64_t size) {
  return TinyImage(21, size);
}

Result<void> check(const TinyImage& image, const ImageLimits& limits = {}) {
  ASSIGN_OR_RETURN(const auto opened, image.image());
  RETURN_IF_ERROR(check_header_limits(opened->header(), limits));
  return check_table_limits(*opened, limits);
}

}  // namespace

TEST_CASE("the amount of data that an image may map is limited", "[limits]") {
  TinyImage image = large(uint64_t{512} << 30);
  for (uint64_t i = 0; i < 2048; ++i) image.set_l2(i, image.cluster(5) | kCopied);
  // 4 GiB of disk in a file of 16 MiB.
  REQUIRE_OK(check(image));
  ImageLimits limits;
  limits.ratio = 255;
  REQUIRE_FAILS_WITH(check(image, limits), "map more than 4278190080 bytes of data");
  for (uint64_t i = 2048; i < 4096; ++i) image.set_l2(i, image.cluster(5) | kCopied);
  REQUIRE_FAILS_WITH(check(image), "limit for untrusted images");
  // Zeros do not count.
  for (uint64_t i = 0; i < 4096; ++i) image.set_l2(i, image.cluster(5) | kCopied | kEntryZero);
  REQUIRE_OK(check(image));
  // A small image may map any size.
  limits.ratio = 1;
  for (uint64_t i = 0; i < 4096; ++i) image.set_l2(i, i < 512 ? image.cluster(5) | kCopied : 0);
  REQUIRE_OK(check(image, limits));
  image.set_l2(512, image.cluster(5) | kCopied);
  REQUIRE_FAILS_WITH(check(image, limits), "map more than 1073741824 bytes");
}

TEST_CASE("no L2 table may be used twice in an untrusted image", "[limits]") {
  TinyImage image = large(uint64_t{16} << 40);
  image.put32(36, 32);
  for (uint64_t i = 1; i < 32; ++i) image.put64(image.cluster(3) + i * 8, image.cluster(5 + i % 2));
  REQUIRE_FAILS_WITH(check(image), "is used by several L1 entries");
  for (uint64_t i = 1; i < 32; ++i) image.put64(image.cluster(3) + i * 8, 0);
  image.put64(image.cluster(3) + 8, image.cluster(5));
  REQUIRE_OK(check(image));
}

TEST_CASE("the values of a header are limited", "[limits]") {
  ImageLimits limits;
  limits.virtual_size = 1 << 20;
  REQUIRE_OK(check(TinyImage(16, 1 << 20), limits));
  REQUIRE_FAILS_WITH(check(TinyImage(16, (1 << 20) + 512), limits), "the disk has 1049088 bytes");
  Header header;
  header.snapshot_count = 65;
  REQUIRE_FAILS_WITH(check_header_limits(header, {}),
                     "65 internal snapshots, but only 64 are allowed");
  header.snapshot_count = 64;
  REQUIRE_OK(check_header_limits(header, {}));
  HeaderExtension bitmaps{HeaderExtension::kBitmaps, std::vector<std::byte>(24)};
  bitmaps.data[3] = std::byte{65};
  header.extensions.push_back(bitmaps);
  REQUIRE_FAILS_WITH(check_header_limits(header, {}), "65 bitmaps");
}
