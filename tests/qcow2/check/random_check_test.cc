// Checks random images, intact and with random damage: the figures equal qemu-img's, and the check
// ends.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "qcow2/format/l2_entry.h"
#include "tests/catch.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/image_maker.h"
#include "tests/qcow2/check/both_checks.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

using interop::ImageEditor;
using qcow2::Finding;
using support::Random;

namespace {

using Kind = Finding::Kind;

// Returns true if our result differs from qemu-img's on purpose. damages.cc has the reasons.
bool differs_on_purpose(const OurAnswer& ours, uint64_t file_size) {
  for (const Finding& it : ours.findings) {
    switch (it.kind) {
      case Kind::kZeroFlagVersion2:
      case Kind::kL2TableUnaligned:
      case Kind::kRefcountTableUnusable:
      case Kind::kSnapshotTableUnusable:
      case Kind::kSnapshotsTooMany:
      case Kind::kSnapshotExtraTooLong:
      case Kind::kBitmapDirectoryUnusable:
        return true;
      case Kind::kOverlap:
        if (it.severity == Finding::Severity::kCorruption) return true;
        break;
      case Kind::kRefcountBlockOutside:
      case Kind::kRefcountTableReserved:
        // qemu-img takes an offset of 2^63 or more for negative, and stops.
        if (it.host.value() >> 63 != 0) return true;
        break;
      case Kind::kReferenceOutside:
        // qemu-img reads the entries of a table that are past the end as zeros.
        if ((it.place == Finding::Place::kL1Table || it.place == Finding::Place::kL2Table) &&
            it.host.value() < file_size)
          return true;
        break;
      case Kind::kL1Copied:
        if (it.expected == 0) return true;
        break;
      case Kind::kL1Reserved:
        // Without an offset, qemu-img takes the header for an L2 table.
        if ((it.expected & qcow2::kEntryOffsetMask) == 0) return true;
        break;
      default:
        break;
    }
  }
  return false;
}

// Returns the ranges of metadata: header, L1 table, L2 tables, snapshot table, refcount table and
// blocks.
std::vector<std::pair<uint64_t, uint64_t>> metadata_ranges(ImageEditor& image) {
  const uint64_t size = image.bytes().size();
  std::vector<std::pair<uint64_t, uint64_t>> ranges{{0, 112}, {0, 512}};
  const auto add = [&](uint64_t at, uint64_t length) {
    if (at < size && length > 0) ranges.emplace_back(at, std::min(length, size - at));
  };
  const auto add_table = [&](uint64_t table, uint64_t entries) {
    add(table, entries * 8);
    for (uint64_t i = 0; i < entries && table + i * 8 + 8 <= size; ++i) {
      const uint64_t at = image.get64(table + i * 8) & qcow2::kEntryOffsetMask;
      // Only the start of a table or block is in use.
      if (at != 0) add(at, std::min<uint64_t>(image.cluster_size(), 1024));
    }
  };
  add_table(image.get64(ImageEditor::kL1Offset), image.get32(ImageEditor::kL1Size));
  add_table(image.get64(ImageEditor::kRefcountTableOffset), 4);
  if (image.get32(ImageEditor::kSnapshotCount) > 0) {
    const uint64_t table = image.get64(ImageEditor::kSnapshotOffset);
    add(table, 200);
    add_table(image.get64(table), std::min(image.get32(table + 8), 64u));
  }
  return ranges;
}

std::string damage(ImageEditor& image, Random& random) {
  const auto ranges = metadata_ranges(image);
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

}  // namespace

TEST_CASE("random images get the figures of qemu-img", "[random]") {
  const uint64_t count = support::iterations(15);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const support::TempDirectory folder;
    const interop::MadeImage made = interop::make_image(random, folder.path());
    INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n" << made.recipe);
    const QemuAnswer qemu = ask_qemu(made.path);
    qcow2::CheckOptions options;
    options.threads = 1 + static_cast<unsigned>(seed % 3);
    // Some checks need many passes.
    if (random.chance(30)) options.count_memory = 1;
    const OurAnswer ours = ask_us(made.path, options);
    INFO("qemu-img: " << qemu.says << "\nwe: " << ours.error << ours.says);
    REQUIRE(qemu.has_json);
    REQUIRE(ours.error.empty());
    CHECK(ours.exit_code == qemu.exit_code);
    CHECK(differences(qemu, ours) == "");

    // Everything that QEMU wrote can be decoded, and its descriptors are exact.
    options.deep = true;
    const OurAnswer deep = ask_us(made.path, options);
    INFO("deep: " << deep.error << deep.says);
    CHECK(differences(qemu, deep) == "");
    CHECK(deep.sums.undecodable_clusters == 0);
    CHECK(!deep.has(Kind::kDescriptorTooLong));
  }
}

TEST_CASE("the check of damaged images ends, and its figures agree with qemu-img", "[damaged]") {
  const uint64_t count = support::iterations(10);
  uint64_t compared = 0;
  for (uint64_t i = 0; support::more_iterations(i, count, compared > 0); ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const support::TempDirectory folder;
    const interop::MadeImage made = interop::make_image(random, folder.path());
    if (made.huge) continue;
    const std::string path = made.path + ".damaged";
    for (unsigned variant = 0; variant < 10; ++variant) {
      ImageEditor image(made.path);
      const std::string story = damage(image, random);
      image.save_as(path);
      INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n"
                                << made.recipe << story << "variant " << variant);
      qcow2::CheckOptions options;
      options.deep = random.chance(30);
      const auto begin = std::chrono::steady_clock::now();
      const OurAnswer ours = ask_us(path, options);
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      CHECK(elapsed.count() < 30);
      if (options.deep || differs_on_purpose(ours, image.bytes().size()) ||
          ours.sums.corruptions > 5000)
        continue;
      const QemuAnswer qemu = ask_qemu(path);
      INFO("qemu-img: " << qemu.says << "\nwe: " << ours.error << ours.says);
      if (!qemu.has_json) {
        // qemu-img cannot open it, for a reason that this test does not cover.
        continue;
      }
      // qemu-img opens more headers than we do, and finds the errors later.
      if (!ours.error.empty()) continue;
      ++compared;
      CHECK(ours.exit_code == qemu.exit_code);
      CHECK(differences(qemu, ours) == "");
    }
  }
  CHECK(compared > 0);
}

}  // namespace vc::checks
