// Tests images that are marked dirty, by QEMU and by hand.
#include "qcow2/refcounts/in_place_rebuild.h"
#include "qcow2/write/chain_writer.h"

#include <fmt/format.h>

#include <fstream>

#include "base/byte_order.h"
#include "qcow2/read/chain.h"
#include "tests/catch_text.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;
using support::Random;
using support::TempDirectory;

namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kSize = 4 << 20;

void write_file(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

int check(const std::string& image) {
  const auto outcome = support::run({"qemu-img", "check", "-q", "-f", "qcow2", image});
  INFO(outcome.describe());
  return outcome.exit_code;
}

Bytes content_of(const std::string& image) {
  const auto chain = Chain::open(image, {});
  REQUIRE_OK(chain);
  Bytes bytes(chain->disk().size());
  REQUIRE_OK(chain->disk().read(GuestOffset(0), bytes));
  return bytes;
}

Result<void> open_to_write(const std::string& image) {
  OpenOptions options;
  options.writable = true;
  ASSIGN_OR_RETURN(const Chain chain, Chain::open(image, options));
  ASSIGN_OR_RETURN(const auto writer, open_writer(chain, {}));
  return writer->close();
}

void set_bytes(const std::string& image, uint64_t at, const Bytes& bytes) {
  Bytes all = support::read_file(image);
  std::copy(bytes.begin(), bytes.end(), all.begin() + static_cast<ptrdiff_t>(at));
  write_file(image, all);
}

void mark_dirty(const std::string& image) {
  Bytes field = support::read_file(image);
  field.resize(80);
  field[79] |= std::byte{incompatible::kDirty};
  set_bytes(image, 79, {field[79]});
}

uint64_t word_at(const std::string& image, uint64_t at) {
  return load_be64(support::read_file(image).data() + at);
}

// Makes data, compressed clusters and a snapshot, so that there are all kinds of refcounts.
std::string image_with_all(const TempDirectory& folder, const std::string& options) {
  const std::string image = folder / "disk";
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, std::to_string(kSize)});
  const auto write = [&](const char* command) {
    support::run_ok({"qemu-io", "-f", "qcow2", "-c", command, image});
  };
  write("write -q -P 1 0 1M");
  write("write -q -c -P 2 1M 64k");
  write("write -q -c -P 3 1088k 64k");
  support::run_ok({"qemu-img", "snapshot", "-c", "one", image});
  write("write -q -P 4 512k 1M");
  return image;
}

}  // namespace

TEST_CASE("a dirty image of QEMU is repaired", "[in-place-rebuild]") {
  const uint64_t images = support::iterations(8);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    CAPTURE(seed);
    const TempDirectory folder;
    const std::string cluster = std::to_string(1u << random.between(10, 16));
    const std::string image =
        image_with_all(folder, "lazy_refcounts=on,cluster_size=" + (i == 0 ? "65536" : cluster));
    // qemu-io ends before it has written its refcounts.
    std::vector<std::string> command{"qemu-io", "-f", "qcow2"};
    for (int write = 0; write < 20; ++write) {
      const uint64_t at = random.below(kSize / 512) * 512;
      const uint64_t length = std::min(random.between(1, 300) * 512, kSize - at);
      command.insert(command.end(),
                     {"-c", fmt::format("write -q -P {} {} {}", random.below(256), at, length)});
    }
    command.insert(command.end(), {"-c", "flush", "-c", "abort", image});
    REQUIRE_FALSE(support::run(command).ok());
    REQUIRE((word_at(image, 72) & incompatible::kDirty) != 0);
    const Bytes before = content_of(image);

    REQUIRE_OK(open_to_write(image));
    CHECK((word_at(image, 72) & incompatible::kDirty) == 0);
    CHECK(check(image) == 0);
    CHECK(content_of(image) == before);
  }
}

TEST_CASE("refcounts are rebuilt from any state", "[in-place-rebuild]") {
  for (const char* options :
       {"cluster_size=64k", "cluster_size=64k,refcount_bits=64", "cluster_size=4k,refcount_bits=8",
        "cluster_size=64k,extended_l2=on"}) {
    CAPTURE(options);
    const TempDirectory folder;
    const std::string image = image_with_all(folder, options);
    const Bytes before = content_of(image);
    const uint64_t block = word_at(image, word_at(image, 48));
    Random random(support::base_seed());
    Bytes garbage(512);
    random.fill(garbage);
    set_bytes(image, block, garbage);
    REQUIRE(check(image) != 0);
    mark_dirty(image);
    REQUIRE_OK(open_to_write(image));
    CHECK(check(image) == 0);
    CHECK(content_of(image) == before);
  }
}

TEST_CASE("COPIED flags follow the refcounts", "[in-place-rebuild]") {
  const TempDirectory folder;
  const std::string image = image_with_all(folder, "cluster_size=64k");
  const Bytes before = content_of(image);
  // A shared cluster would be written in place, and an unshared one would be copied.
  const uint64_t l1 = word_at(image, 40);
  const uint64_t l2 = word_at(image, l1) & kEntryOffsetMask;
  const auto flip = [&](uint64_t at) {
    Bytes word(8);
    store_be64(word.data(), word_at(image, at) ^ kEntryCopied);
    set_bytes(image, at, word);
  };
  flip(l1);
  flip(l2);
  flip(l2 + 8 * 8);
  REQUIRE(check(image) == 2);
  mark_dirty(image);
  REQUIRE_OK(open_to_write(image));
  CHECK(check(image) == 0);
  CHECK(content_of(image) == before);
}

TEST_CASE("clusters of bitmaps get refcounts, too", "[in-place-rebuild]") {
  const TempDirectory folder;
  const std::string image = image_with_all(folder, "cluster_size=64k");
  support::run_ok({"qemu-img", "bitmap", "--add", image, "changes"});
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 2M 1M", image});
  mark_dirty(image);
  REQUIRE_OK(open_to_write(image));
  CHECK(check(image) == 0);
  CHECK_THAT(support::run_ok({"qemu-img", "info", image}).out, Catch::Contains("changes"));
}

TEST_CASE("an image whose refcounts cannot be rebuilt is not changed", "[in-place-rebuild]") {
  const TempDirectory folder;
  const std::string image = image_with_all(folder, "cluster_size=64k");
  const uint64_t l1 = word_at(image, 40);
  const uint64_t l2 = word_at(image, l1) & kEntryOffsetMask;
  const auto put = [&](uint64_t at, uint64_t value) {
    Bytes word(8);
    store_be64(word.data(), value);
    set_bytes(image, at, word);
  };
  std::string why;
  SECTION("no refcount block") {
    put(word_at(image, 48), 0);
    why = "no refcount block covers it";
  }
  SECTION("a cluster past the end of the file") {
    put(l2 + 8 * 40, uint64_t{1} << 40 | kEntryCopied);
    why = "is past the end of the file";
  }
  SECTION("overlapping tables") {
    // Makes the snapshot's L1 table the active one.
    put(word_at(image, 64), l1);
    why = "overlap";
  }
  mark_dirty(image);
  REQUIRE_FAILS_WITH(open_to_write(image), why);
  REQUIRE_FAILS_WITH(open_to_write(image), "repair it with qemu-img check -r all");
  // Refcounts may have been written, but the image is still marked dirty.
  CHECK((word_at(image, 72) & incompatible::kDirty) != 0);
}

TEST_CASE("a refcount that is too narrow is not repaired", "[in-place-rebuild]") {
  const TempDirectory folder;
  const std::string image = folder / "disk";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
                   "cluster_size=64k,refcount_bits=1", image, "4M"});
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q 0 128k", image});
  const uint64_t l2 = word_at(image, word_at(image, 40)) & kEntryOffsetMask;
  Bytes word(8);
  store_be64(word.data(), word_at(image, l2));
  set_bytes(image, l2 + 8, word);
  mark_dirty(image);
  REQUIRE_FAILS_WITH(open_to_write(image), "has 2 references: its refcount has too few bits");
}
