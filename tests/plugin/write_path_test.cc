#include "plugin/write_path.h"
#include "qcow2/write/chain_writer.h"

#include "qcow2/read/chain.h"
#include "tests/catch_text.h"
#include "tests/plugin/served_disk.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using plugin::WritePath;
using support::TempDirectory;

namespace {

using Bytes = std::vector<std::byte>;
using DetectZeroes = WritePath::Options::DetectZeroes;

constexpr uint64_t kKiB = 1024;

std::unique_ptr<WritePath> open(const std::string& image, const WritePath::Options& options) {
  qcow2::OpenOptions how;
  how.writable = true;
  const auto chain = qcow2::Chain::open(image, how);
  REQUIRE_OK(chain);
  auto writer = qcow2::open_writer(*chain, options.writer);
  REQUIRE_OK(writer);
  return std::make_unique<WritePath>(std::move(*writer), options);
}

std::string image_in(const TempDirectory& folder) {
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "16M"});
  return image;
}

Bytes filled(uint64_t length, unsigned value) {
  return Bytes(length, static_cast<std::byte>(value));
}

bool reads_as(const WritePath& path, uint64_t at, uint64_t length, unsigned value) {
  Bytes found(length);
  REQUIRE_OK(path.writer().read(GuestOffset(at), found));
  return found == filled(length, value);
}

}  // namespace

TEST_CASE("zeros inside of writes get no clusters", "[write-path]") {
  const TempDirectory folder;
  const std::string image = image_in(folder);
  Bytes bytes = filled(1024 * kKiB, 0);
  std::fill_n(bytes.begin() + 512 * kKiB, 10, std::byte{1});
  for (const auto mode : {DetectZeroes::kOff, DetectZeroes::kOn, DetectZeroes::kUnmap}) {
    WritePath::Options options;
    options.detect_zeroes = mode;
    const auto path = open(image, options);
    const bool found = mode != DetectZeroes::kOff;
    // A new range each time. The first one allocates an L2 table.
    const uint64_t at = static_cast<uint64_t>(mode) * 2048 * kKiB;
    REQUIRE_OK(path->write(GuestOffset(at), bytes));
    CHECK(path->writer().statistics().allocated == (found ? 1 : 17));
    Bytes read(bytes.size());
    REQUIRE_OK(path->writer().read(GuestOffset(at), read));
    CHECK(read == bytes);
    REQUIRE_OK(path->close());
  }
  test::qemu_img({"check", "-q", image});
}

TEST_CASE("detect-zeroes=unmap frees clusters, detect-zeroes=on and discard=ignore do not",
          "[write-path]") {
  const TempDirectory folder;
  const std::string image = image_in(folder);
  for (const bool discard : {true, false})
    for (const auto mode : {DetectZeroes::kOn, DetectZeroes::kUnmap}) {
      WritePath::Options options;
      options.detect_zeroes = mode;
      options.writer.discard = discard;
      const auto path = open(image, options);
      REQUIRE_OK(path->write(GuestOffset(0), filled(256 * kKiB, 7)));
      REQUIRE_OK(path->write(GuestOffset(64 * kKiB), filled(64 * kKiB, 0)));
      REQUIRE_OK(path->flush());
      CHECK(path->writer().statistics().freed == (discard && mode == DetectZeroes::kUnmap ? 1 : 0));
      CHECK(reads_as(*path, 64 * kKiB, 64 * kKiB, 0));
      CHECK(reads_as(*path, 128 * kKiB, 128 * kKiB, 7));
      REQUIRE_OK(path->close());
    }
  test::qemu_img({"check", "-q", image});
}

TEST_CASE("a cluster is freed when several trims cover it", "[write-path]") {
  const TempDirectory folder;
  const std::string image = image_in(folder);
  for (const bool coalesce : {false, true}) {
    WritePath::Options options;
    options.coalesce_discard = coalesce;
    const auto path = open(image, options);
    REQUIRE_OK(path->write(GuestOffset(0), filled(256 * kKiB, 9)));
    for (uint64_t at = 0; at < 160 * kKiB; at += 20 * kKiB)
      REQUIRE_OK(path->trim(GuestOffset(at), 20 * kKiB));
    // Data written later stays, and so does its cluster.
    REQUIRE_OK(path->trim(GuestOffset(192 * kKiB), 32 * kKiB));
    REQUIRE_OK(path->write(GuestOffset(200 * kKiB), filled(kKiB, 3)));
    REQUIRE_OK(path->trim(GuestOffset(224 * kKiB), 32 * kKiB));
    REQUIRE_OK(path->flush());
    CHECK(path->writer().statistics().freed == (coalesce ? 2 : 0));
    CHECK(reads_as(*path, 200 * kKiB, kKiB, 3));
    CHECK(reads_as(*path, 160 * kKiB, 32 * kKiB, 9));
    REQUIRE_OK(path->close());
  }
  test::qemu_img({"check", "-q", image});
}

TEST_CASE("zero-fragments=true zeros trims that fill no cluster", "[write-path]") {
  const TempDirectory folder;
  const std::string image = image_in(folder);
  WritePath::Options options;
  options.coalesce_discard = true;
  options.zero_fragments = true;
  auto path = open(image, options);
  REQUIRE_OK(path->write(GuestOffset(0), filled(64 * kKiB, 9)));
  REQUIRE_OK(path->trim(GuestOffset(10 * kKiB), 20 * kKiB));
  CHECK(reads_as(*path, 0, 64 * kKiB, 9));
  REQUIRE_OK(path->flush());
  CHECK(reads_as(*path, 10 * kKiB, 20 * kKiB, 0));
  CHECK(reads_as(*path, 30 * kKiB, 34 * kKiB, 9));
  REQUIRE_OK(path->close());
  path.reset();  // so that QEMU can lock the image
  test::qemu_img({"check", "-q", image});
}

TEST_CASE("discard=ignore trims nothing", "[write-path]") {
  const TempDirectory folder;
  const std::string image = image_in(folder);
  WritePath::Options options;
  options.writer.discard = false;
  options.coalesce_discard = true;
  const auto path = open(image, options);
  REQUIRE_OK(path->write(GuestOffset(0), filled(128 * kKiB, 9)));
  REQUIRE_OK(path->trim(GuestOffset(0), 128 * kKiB));
  REQUIRE_OK(path->zero(GuestOffset(64 * kKiB), 64 * kKiB, true));
  REQUIRE_OK(path->flush());
  CHECK(path->writer().statistics().freed == 0);
  CHECK(reads_as(*path, 0, 64 * kKiB, 9));
  CHECK(reads_as(*path, 64 * kKiB, 64 * kKiB, 0));
  REQUIRE_OK(path->close());
}
