// Copies of images of every kind. Each is valid and equal for QEMU, and independent of the number
// of threads.
#include "copy/copier.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "tests/catch.h"
#include "tests/interop/corner_images.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/qemu.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::interop {

using copy::CopyOptions;
using qcow2::CompressionType;
using support::NbdServer;
using support::Random;
using support::TempDirectory;

namespace {

// Checks that progress never decreases, and that it ends at its total.
class CheckedProgress final : public Progress {
 public:
  void update(uint64_t done, uint64_t total) override {
    good_ = good_ && done >= done_ && done <= total;
    done_ = done;
    total_ = total;
  }
  bool complete() const { return good_ && done_ == total_; }

 private:
  bool good_ = true;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

copy::CopySummary copy_or_fail(const CopyOptions& options) {
  CheckedProgress progress;
  const Cancel cancel;
  const auto summary = copy::copy(options, progress, cancel);
  INFO((summary ? "" : summary.error().message()));
  REQUIRE(summary);
  CHECK(progress.complete());
  return *summary;
}

std::string describe(const CopyOptions& options) {
  return fmt::format(
      "copy of {} snapshot '{}': compression {}, cluster_bits {}, {} threads, {} connections, {} "
      "requests of {} bytes",
      options.source, options.snapshot,
      options.compression ? qcow2::to_string(*options.compression.type) : "none",
      options.image.cluster_bits ? std::to_string(*options.image.cluster_bits) : "the source's",
      options.threads, options.nbd.connections, options.nbd.requests, options.nbd.request_size);
}

// Keeps disks small, so that the L1 table is far below its limit. Some disks are too large for
// small clusters.
unsigned draw_cluster_bits(Random& random, uint64_t size) {
  unsigned least = 9;
  while ((size >> (2 * least - 3)) > 4096) ++least;
  return static_cast<unsigned>(random.between(std::max(least, 9u), 21));
}

void draw_speed(Random& random, CopyOptions& options) {
  options.threads = static_cast<unsigned>(random.between(1, 8));
  options.nbd.connections = static_cast<unsigned>(random.between(1, 4));
  options.nbd.requests = static_cast<unsigned>(random.between(1, 32));
  options.nbd.request_size = uint64_t{4096} << random.below(8);
}

// Copies, and checks with QEMU that the result has the bytes of `raw`.
void check_copy(const CopyOptions& options, const std::string& raw) {
  INFO(describe(options));
  const copy::CopySummary summary = copy_or_fail(options);
  const uint64_t size = std::filesystem::file_size(raw);
  CHECK(summary.virtual_size == size);
  CHECK(virtual_size(options.destination) == size);
  CHECK(check_complaint(options.destination) == "");
  CHECK(compare_complaint(options.destination, "qcow2", raw) == "");
  CHECK(summary.destination->length == std::filesystem::file_size(options.destination));
  if (options.image.cluster_bits)
    CHECK(summary.cluster_size == uint64_t{1} << *options.image.cluster_bits);
  if (!options.compression) CHECK(summary.compressed_clusters == 0);
  CHECK(summary.data_clusters + summary.compressed_clusters + summary.zero_clusters ==
        (size + summary.cluster_size - 1) / summary.cluster_size);
}

// Checks that the copy is the same with other numbers of threads.
void check_determinism(CopyOptions options, Random& random) {
  const std::string first = options.destination;
  for (const unsigned threads : {1u, 2u, 8u}) {
    draw_speed(random, options);
    options.threads = threads;
    options.destination = first + ".again";
    options.overwrite = true;
    INFO(describe(options));
    copy_or_fail(options);
    const auto differ = support::first_difference(first, options.destination);
    INFO((differ ? fmt::format("the first difference is at {:#x}", *differ) : ""));
    CHECK_FALSE(differ);
  }
  std::filesystem::remove(options.destination);
}

void check_copies(const std::string& source, const std::string& snapshot,
                  const std::string& as_image, const std::string& raw, Random& random) {
  const TempDirectory folder;
  CopyOptions options;
  options.source = source;
  options.snapshot = snapshot;
  const uint64_t size = std::filesystem::file_size(raw);

  const auto run = [&](const std::string& name) {
    options.destination = folder / name;
    draw_speed(random, options);
    check_copy(options, raw);
  };
  run("plain");
  if (random.chance(40)) check_determinism(options, random);
  options.compression.type = CompressionType::kZstd;
  options.compression.level = random.chance(30) ? static_cast<int>(random.between(1, 6)) : 0;
  run("zstd");
  if (random.chance(40)) check_determinism(options, random);
  options.compression.level = 0;
  options.compression.type = CompressionType::kDeflate;
  run("zlib");
  if (random.chance(40)) check_determinism(options, random);
  options.image.cluster_bits = draw_cluster_bits(random, size);
  options.image.refcount_order = 4;
  options.image.extended_l2 = false;
  options.image.lazy_refcounts = false;
  if (random.chance(50)) options.compression.type.reset();
  if (random.chance(50)) options.compression.type = CompressionType::kZstd;
  run("other clusters");
  // The folder contains only the copies.
  CHECK(support::list_directory(folder.path()) ==
        std::vector<std::string>{"other clusters", "plain", "zlib", "zstd"});

  // The same disk from a server gives the same result.
  const NbdServer server = NbdServer::qemu_nbd({"-f", "qcow2", as_image});
  options.source = server.uri();
  options.snapshot.clear();
  run("from qemu-nbd");
  const auto differ =
      support::first_difference(folder / "from qemu-nbd", folder / "other clusters");
  // We compress the clusters in both copies, unless the source's own streams are copied unchanged.
  if (!options.compression) CHECK_FALSE(differ);
  if (random.chance(50)) check_determinism(options, random);
}

}  // namespace

TEST_CASE("copies of random images pass the check, are equal, and are reproducible", "[copier]") {
  const uint64_t count = support::iterations(14);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const MadeImage made = make_image(random, folder.path());
    INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n" << made.recipe);
    std::vector<std::byte> before;
    if (!made.huge) before = support::read_file(made.path);
    const MadeDisk& disk = random.pick(made.disks);
    check_copies(made.path, disk.snapshot, disk.image, disk.raw, random);
    if (!made.huge) CHECK(support::read_file(made.path) == before);
  }
}

TEST_CASE("copies of corner cases pass the check and are equal", "[copier]") {
  const TempDirectory folder;
  Random random(support::base_seed());
  for (const CornerImage& corner : make_corner_images(folder.path())) {
    INFO(corner.name);
    const std::string raw = corner.path + ".raw";
    convert_to_raw(corner.path, raw);
    const TempDirectory copies;
    for (const auto compression :
         {std::optional<CompressionType>(), std::optional(CompressionType::kZstd),
          std::optional(CompressionType::kDeflate)}) {
      CopyOptions options;
      options.source = corner.path;
      options.destination = copies / "copy";
      options.overwrite = true;
      options.compression.type = compression;
      check_copy(options, raw);
    }
  }
}

TEST_CASE("raw files of any length are copied", "[copier]") {
  const TempDirectory folder;
  Random random(support::base_seed());
  for (const uint64_t size : {1, 511, 512, 513, 65536, 65537, 1'000'001}) {
    INFO("size " << size);
    const std::string raw = folder / "disk.raw";
    std::vector<std::byte> bytes(size);
    random.fill(bytes);
    support::write_file(raw, bytes);
    CopyOptions options;
    options.source = raw;
    options.source_format = qcow2::Format::kRaw;
    options.destination = folder / "copy.qcow2";
    options.overwrite = true;
    copy_or_fail(options);
    CHECK(check_complaint(options.destination) == "");
    // QEMU rounds the disk up to whole sectors, too.
    CHECK(virtual_size(options.destination) == (size + 511) / 512 * 512);
    CHECK(compare_complaint(options.destination, "qcow2", raw) == "");
  }
}

}  // namespace vc::interop
