// Copies of images with their internal snapshots. QEMU reads each state of the copy as it reads the
// source's.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "copy/copier.h"
#include "qcow2/format/refcount_block.h"
#include "qcow2/read/chain.h"
#include "tests/catch.h"
#include "tests/interop/qemu.h"
#include "tests/interop/snapshot_maker.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::interop {

using copy::CopyOptions;
using qcow2::CompressionType;
using support::Random;
using support::run_ok;
using support::TempDirectory;

namespace {

class CheckedProgress final : public Progress {
 public:
  void begin(Phase /*phase*/) override { done_ = 0; }
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

std::vector<qcow2::Snapshot> snapshots_of(const std::string& path) {
  auto chain = qcow2::Chain::open(path, {});
  REQUIRE(chain);
  return chain->image()->snapshots();
}

void check_table(const std::string& source, const std::string& copy) {
  CHECK(run_ok({"qemu-img", "snapshot", "-l", copy}).out ==
        run_ok({"qemu-img", "snapshot", "-l", source}).out);
  const auto before = snapshots_of(source);
  const auto after = snapshots_of(copy);
  REQUIRE(after.size() == before.size());
  for (size_t i = 0; i < before.size(); ++i) {
    CHECK(after[i].id == before[i].id);
    CHECK(after[i].name == before[i].name);
    CHECK(after[i].date_seconds == before[i].date_seconds);
    CHECK(after[i].date_nanoseconds == before[i].date_nanoseconds);
    CHECK(after[i].vm_clock_nanoseconds == before[i].vm_clock_nanoseconds);
    CHECK(after[i].instruction_count == before[i].instruction_count);
    CHECK(after[i].vm_state_size == before[i].vm_state_size);
    CHECK(after[i].disk_size == before[i].disk_size);
    CHECK(after[i].unknown_extra == before[i].unknown_extra);
  }
}

// Checks each state of the copy, from number `first` on, through QEMU.
void check_states(const SnapshotImage& image, const std::string& copy, size_t first = 0) {
  for (size_t i = first; i < image.states.size(); ++i) {
    INFO("state " << i << " '" << image.states[i].name << "'");
    const MadeState state = read_state(copy, i, fmt::format("{}.state{}", copy, i));
    CHECK_FALSE(support::first_difference(state.disk, image.states[i].disk));
    CHECK(state.vm_state.empty() == image.states[i].vm_state.empty());
    if (!state.vm_state.empty())
      CHECK_FALSE(support::first_difference(state.vm_state, image.states[i].vm_state));
    std::filesystem::remove(state.disk);
    if (!state.vm_state.empty()) std::filesystem::remove(state.vm_state);
  }
}

// A copy in the same layout is no longer than its source: what states share, it stores once.
void check_length(const SnapshotImage& image, uint64_t length) {
  if (image.has_backing) return;
  CHECK(length <= std::filesystem::file_size(image.path) + 6 * image.cluster_size);
}

void check_copy(const SnapshotImage& image, CopyOptions options, Random& random) {
  INFO("compression " << (options.compression ? to_string(*options.compression.type) : "none")
                      << ", cluster bits " << options.image.cluster_bits.value_or(0));
  const copy::CopySummary summary = copy_or_fail(options);
  CHECK(summary.snapshots == image.states.size() - 1);
  CHECK(check_complaint(options.destination) == "");
  check_table(image.path, options.destination);
  check_states(image, options.destination);
  if (options.keep_compression) check_length(image, summary.destination->length);

  if (random.chance(40)) {
    CopyOptions again = options;
    again.destination = options.destination + ".again";
    for (const unsigned threads : {1u, 2u, 4u}) {
      again.threads = threads;
      again.overwrite = true;
      copy_or_fail(again);
      CHECK_FALSE(support::first_difference(options.destination, again.destination));
    }
    std::filesystem::remove(again.destination);
  }
  CopyOptions dry = options;
  dry.dry_run = true;
  dry.destination += ".dry";
  CHECK(copy_or_fail(dry).predicted == summary.destination->length);
}

// Checks a copy of an overlay, whose changes are not in the snapshots of the image below it.
void check_overlay(const SnapshotImage& image, CopyOptions options, const TempDirectory& folder,
                   Random& random) {
  const std::string overlay = image.path + ".overlay";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k", "-b",
          image.path, "-F", "qcow2", overlay});
  const uint64_t size = virtual_size(overlay);
  for (unsigned i = 0; i < 4; ++i) {
    const uint64_t at = random.below(size / 4096) * 4096;
    run_ok({"qemu-io", "-d", "unmap", "-c",
            fmt::format("{} {} {}", i % 2 == 0 ? "discard -q" : "write -q -P 88", at,
                        std::min(size - at, random.between(1, 60) * 4096)),
            overlay});
  }
  SnapshotImage changed = image;
  changed.states[0].disk = folder / "overlay.raw";
  convert_to_raw(overlay, changed.states[0].disk);
  options.source = overlay;
  options.snapshots->image = image.path;
  options.destination = folder / "of overlay";
  copy_or_fail(options);
  CHECK(check_complaint(options.destination) == "");
  check_table(image.path, options.destination);
  check_states(changed, options.destination);
}

// Checks a copy that leaves out parts of the active disk. They stay in the snapshots.
void check_unused(const SnapshotImage& image, CopyOptions options, const TempDirectory& folder,
                  Random& random) {
  const uint64_t size = std::filesystem::file_size(image.states[0].disk);
  guest::Ranges::Builder ranges;
  for (unsigned i = 0; i < 6; ++i) {
    const uint64_t at = random.below(size / 4096) * 4096;
    ranges.add(at, std::min(size, at + random.between(1, 60) * 4096));
  }
  const guest::Ranges unused = ranges.take();
  options.unused = std::make_shared<const guest::Ranges>(unused);
  options.destination = folder / "less";
  const auto summary = copy_or_fail(options);
  CHECK(check_complaint(options.destination) == "");
  check_table(image.path, options.destination);
  check_states(image, options.destination, 1);
  if (options.keep_compression) check_length(image, summary.destination->length);
  convert_to_raw(options.destination, folder / "less.raw");
  const support::RawFile before(image.states[0].disk);
  const support::RawFile after(folder / "less.raw");
  const auto same = [&](uint64_t begin, uint64_t end) {
    return before.read(begin, end - begin) == after.read(begin, end - begin);
  };
  for (const auto& range : guest::one_range(0, size).without(unused).all())
    CHECK(same(range.begin, range.end));
  for (const auto& range : unused.all())
    for (uint64_t at = range.begin; at < range.end; at += 512) {
      const uint64_t length = std::min<uint64_t>(512, range.end - at);
      if (!same(at, at + length)) CHECK_FALSE(after.first_nonzero(at, length));
    }
}

void check_copies(const SnapshotImage& image, Random& random) {
  const TempDirectory folder;
  CopyOptions options;
  options.source = image.path;
  options.snapshots.emplace();
  options.verify = true;
  options.keep_compression = true;
  if (!image.is_v3) options.image.version = 2;
  options.destination = folder / "same";
  check_copy(image, options, random);
  check_unused(image, options, folder, random);
  check_overlay(image, options, folder, random);

  options.keep_compression = false;
  options.image.version.reset();
  options.destination = folder / "compressed";
  options.compression.type = random.chance(50) ? CompressionType::kZstd : CompressionType::kDeflate;
  check_copy(image, options, random);

  if (random.chance(50)) options.compression.type.reset();
  options.destination = folder / "other";
  options.image.cluster_bits = static_cast<unsigned>(random.between(9, 19));
  options.image.extended_l2 = *options.image.cluster_bits >= 14 && random.chance(50);
  options.image.refcount_order = static_cast<unsigned>(random.between(3, 6));
  if (!options.compression && random.chance(30))
    options.image.preallocation = copy::Preallocation::kMetadata;
  check_copy(image, options, random);
}

}  // namespace

TEST_CASE("A copy carries internal snapshots of every kind", "[snapshots]") {
  const uint64_t seed = support::base_seed();
  const uint64_t count = support::iterations(12);
  for (uint64_t i = 0; i < count; ++i) {
    Random random(seed + i);
    const TempDirectory folder;
    const SnapshotImage image = make_snapshot_image(random, folder.path(), 5);
    INFO("VIRT_COMPACT_SEED=" << seed + i << "\n" << image.recipe);
    check_copies(image, random);
  }
}

TEST_CASE("QEMU loads the VM state of a snapshot that was copied", "[snapshots]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "20M"});
  run_ok({"qemu-io", "-c", "write -q -P 7 3M 1M", disk});
  save_machine(disk, "running");
  CopyOptions options;
  options.source = disk;
  options.snapshots.emplace();
  options.compression.type = CompressionType::kDeflate;
  options.image.cluster_bits = 12;
  options.destination = folder / "copy.qcow2";
  copy_or_fail(options);
  support::RunOptions how;
  how.input = "info status\nquit\n";
  const auto loaded =
      support::run({"qemu-system-x86_64", "-accel", "tcg", "-S", "-display", "none", "-M", "pc",
                    "-m", "8", "-nodefaults", "-vga", "none", "-loadvm", "running", "-drive",
                    "if=virtio,format=qcow2,file=" + options.destination, "-monitor", "stdio"},
                   how);
  INFO(loaded.describe());
  CHECK(loaded.ok());
  CHECK(loaded.out.find("VM status") != std::string::npos);
}

TEST_CASE("Dropped snapshots leave the others as they are", "[snapshots]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "20M"});
  for (const char* const name : {"one", "two", "three"}) {
    run_ok({"qemu-io", "-c", fmt::format("write -q -P {} 1M 1M", static_cast<unsigned>(name[1])),
            disk});
    run_ok({"qemu-img", "snapshot", "-q", "-c", name, disk});
  }
  CopyOptions options;
  options.source = disk;
  options.verify = true;
  options.snapshots.emplace();
  options.snapshots->dropped = {"two", "1"};  // by name, and by ID
  options.destination = folder / "copy.qcow2";
  copy_or_fail(options);
  CHECK(check_complaint(options.destination) == "");
  const auto kept = snapshots_of(options.destination);
  REQUIRE(kept.size() == 1);
  CHECK(kept[0].name == "three");
  CHECK(kept[0].id == "3");
  const MadeState expected = read_state(disk, 3, folder / "expected");
  const MadeState found = read_state(options.destination, 1, folder / "found");
  CHECK_FALSE(support::first_difference(expected.disk, found.disk));

  options.snapshots->dropped = {"four"};
  options.overwrite = true;
  Cancel cancel;
  CheckedProgress progress;
  const auto refused = copy::copy(options, progress, cancel);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().find("there is no snapshot 'four'") != std::string::npos);
}

TEST_CASE("Unused parts of clusters that a snapshot shares are not stored twice", "[snapshots]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "20M"});
  run_ok({"qemu-io", "-c", "write -q -P 3 0 8M", disk});
  run_ok({"qemu-img", "snapshot", "-q", "-c", "then", disk});
  guest::Ranges::Builder parts;
  for (uint64_t at = 0; at < 8 << 20; at += 65536) parts.add(at + 8192, at + 24576);
  CopyOptions options;
  options.source = disk;
  options.snapshots.emplace();
  options.verify = true;
  options.unused = std::make_shared<const guest::Ranges>(parts.take());
  options.destination = folder / "copy.qcow2";
  const auto summary = copy_or_fail(options);
  CHECK(summary.snapshot_clusters == 0);
  // The tables may be longer than the source's.
  CHECK(summary.destination->length < std::filesystem::file_size(disk) + (1 << 20));
  CHECK(check_complaint(options.destination) == "");
}

TEST_CASE("Refcounts become wide enough for the snapshots", "[snapshots]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", disk, "20M"});
  run_ok({"qemu-io", "-c", "write -q -P 3 1M 1M", disk});
  for (int i = 0; i < 3; ++i)
    run_ok({"qemu-img", "snapshot", "-q", "-c", fmt::format("s{}", i), disk});
  CopyOptions options;
  options.source = disk;
  options.snapshots.emplace();
  options.destination = folder / "copy.qcow2";
  options.image.refcount_order = 1;
  Cancel cancel;
  CheckedProgress progress;
  const auto refused = copy::copy(options, progress, cancel);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().find("4 bits are needed") != std::string::npos);
  options.image.refcount_order = 2;
  options.compression.type = CompressionType::kDeflate;
  copy_or_fail(options);
  CHECK(check_complaint(options.destination) == "");

  // A source whose own width is too small for what its snapshots could share.
  const std::string narrow = folder / "narrow.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", narrow, "20M"});
  run_ok({"qemu-img", "snapshot", "-q", "-c", "empty", narrow});
  run_ok({"qemu-io", "-c", "write -q -P 3 1M 1M", narrow});
  CopyOptions from_narrow;
  from_narrow.source = narrow;
  from_narrow.snapshots.emplace();
  from_narrow.destination = folder / "wide.qcow2";
  copy_or_fail(from_narrow);
  CHECK(check_complaint(from_narrow.destination) == "");
  CHECK(run_ok({"qemu-img", "info", from_narrow.destination}).out.find("refcount bits: 2") !=
        std::string::npos);
}

}  // namespace vc::interop
