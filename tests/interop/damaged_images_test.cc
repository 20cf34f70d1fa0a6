// Valid images with random damage to their metadata: the engine reads what QEMU reads, or returns
// an error.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "qcow2/format/l2_entry.h"
#include "qcow2/read/chain.h"
#include "tests/catch.h"
#include "tests/interop/disk_comparison.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/image_maker.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::interop {

using support::Random;

namespace {

// Larger disks, which may result from damage, are read only in part.
constexpr uint64_t kLargestDisk = 64 << 20;

// Returns the ranges of metadata: the header's cluster, the L1 table, all L2 tables, the snapshot
// table.
std::vector<std::pair<uint64_t, uint64_t>> metadata_ranges(const ImageEditor& image,
                                                           uint64_t file_size) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges{{0, 112}, {0, 512}};
  const auto add = [&](uint64_t at, uint64_t length) {
    if (at < file_size && length > 0) ranges.emplace_back(at, std::min(length, file_size - at));
  };
  const uint64_t l1 = image.get64(ImageEditor::kL1Offset);
  const uint64_t entries = image.get32(ImageEditor::kL1Size);
  add(l1, entries * 8);
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t table = image.get64(l1 + i * 8) & qcow2::kEntryOffsetMask;
    // The disk uses only the start of a table.
    if (table != 0) add(table, std::min<uint64_t>(image.cluster_size(), 2048));
  }
  if (image.get32(ImageEditor::kSnapshotCount) > 0)
    add(image.get64(ImageEditor::kSnapshotOffset), 200);
  return ranges;
}

std::string damage(ImageEditor& image, Random& random) {
  const auto ranges = metadata_ranges(image, image.bytes().size());
  std::string story;
  for (uint64_t count = random.between(1, 4); count > 0; --count) {
    const auto [begin, length] = random.pick(ranges);
    const uint64_t at = begin + random.below(length);
    if (random.chance(60) || at / 8 * 8 + 8 > image.bytes().size()) {
      image.bytes()[at] ^= std::byte{static_cast<unsigned char>(1u << random.below(8))};
      story += fmt::format("a bit flipped at {:#x}\n", at);
    } else {
      const std::vector<uint64_t> values{0, UINT64_MAX, random.next(),
                                         uint64_t{1} << random.below(64),
                                         image.get64(begin / 8 * 8)};
      const uint64_t value = random.pick(values);
      image.put64(at / 8 * 8, value);
      story += fmt::format("{:#x} at {:#x}\n", value, at / 8 * 8);
    }
  }
  return story;
}

// Reads everything. If damage has made the disk huge, reads the start of some extents.
Result<void> read_some(const qcow2::Disk& disk, std::vector<std::byte>& all) {
  if (disk.size() == 0) return {};
  if (disk.size() <= kLargestDisk) {
    all.resize(disk.size());
    return disk.read(GuestOffset(0), all);
  }
  std::vector<qcow2::Extent> extents;
  RETURN_IF_ERROR(disk.map(GuestOffset(0), disk.size(), extents, 5000));
  std::vector<std::byte> piece;
  for (const qcow2::Extent& extent : extents) {
    piece.resize(std::min<uint64_t>(extent.length, 4096));
    RETURN_IF_ERROR(disk.read_extent(extent, extent.guest, piece));
  }
  return {};
}

}  // namespace

TEST_CASE("the engine survives damaged metadata, and never reads other bytes than QEMU",
          "[bad-input]") {
  const uint64_t count = support::iterations(12);
  uint64_t refused = 0, read = 0;
  for (uint64_t i = 0; support::more_iterations(i, count, refused > 0 && read > 0); ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const support::TempDirectory folder;
    const MadeImage made = make_image(random, folder.path());
    if (made.huge || made.size > kLargestDisk) continue;
    const std::string path = made.path + ".damaged";
    for (unsigned variant = 0; variant < 12; ++variant) {
      ImageEditor image(made.path);
      const std::string story = damage(image, random);
      image.save_as(path);
      INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n"
                                << made.recipe << story << "variant " << variant);

      const auto begin = std::chrono::steady_clock::now();
      std::vector<std::byte> bytes;
      auto result = [&]() -> Result<void> {
        ASSIGN_OR_RETURN(const auto chain, qcow2::Chain::open(path, {}));
        return read_some(chain.disk(), bytes);
      }();
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      CHECK(elapsed.count() < 30);
      if (!result) {
        ++refused;
        CHECK(result.error().message().find(folder.path()) != std::string::npos);
        continue;
      }
      if (bytes.empty()) continue;
      const std::string raw = path + ".raw";
      if (!support::run({"qemu-img", "convert", "-O", "raw", path, raw}).ok()) continue;
      ++read;
      const auto truth = support::read_file(raw);
      // QEMU omits an incomplete last sector of an image, but completes the last sector of a raw
      // disk. It takes a file without the magic number for a raw disk.
      const size_t common = std::min(bytes.size(), truth.size());
      REQUIRE(std::max(bytes.size(), truth.size()) - common < 512);
      const auto differ = std::mismatch(truth.begin(), truth.begin() + common, bytes.begin());
      REQUIRE(static_cast<size_t>(differ.first - truth.begin()) == common);
    }
  }
  CHECK(refused > 0);
  CHECK(read > 0);
}

}  // namespace vc::interop
