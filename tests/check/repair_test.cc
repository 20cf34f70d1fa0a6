// Repairs: what qemu-img finds afterwards, and that they can be taken back.
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qcow2/check/repair.h"
#include "qcow2/check/undo_file.h"
#include "qcow2/memory_storage.h"
#include "tests/catch_text.h"
#include "tests/check/both_checks.h"
#include "tests/check/damages.h"
#include "tests/qcow2/crash_storage.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace checks {

namespace fs = std::filesystem;
using qcow2::RepairOptions;

namespace {

// Says nothing, and never stops.
class Silent final : public qcow2::CheckObserver {
 public:
  void found(const qcow2::Finding&) override {}
};

std::string virt_compact() {
  const char* const path = std::getenv("VIRT_COMPACT");
  REQUIRE(path != nullptr);
  return path;
}

support::Outcome check(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{virt_compact(), "check"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return support::run(command);
}

uint64_t trouble(const QemuAnswer& answer) {
  const auto figure = [&](const char* key) {
    const auto found = answer.figures.find(key);
    return found == answer.figures.end() ? uint64_t{0} : found->second;
  };
  return figure("corruptions") + figure("leaks") + figure("check-errors");
}

// An image with snapshots, compressed clusters and holes.
std::string make_image(const support::TempDirectory& folder, const std::string& options) {
  const std::string path = folder / "image";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "8M"});
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 2M", "-c",
                   "write -q -c -P 2 3M 64k", "-c", "write -q -P 3 5M 300k", path});
  support::run_ok({"qemu-img", "snapshot", "-c", "s", path});
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 4 1M 512k", path});
  return path;
}

// Where qemu-img gives up the snapshots or bitmaps whose tables are damaged, or makes up what a
// snapshot does not say, we leave that to the user.
bool is_for_the_user(qcow2::Finding::Kind kind) {
  using Kind = qcow2::Finding::Kind;
  switch (kind) {
    case Kind::kSnapshotTableUnusable:
    case Kind::kSnapshotsTooMany:
    case Kind::kSnapshotIncomplete:
    case Kind::kSnapshotExtraTooLong:
    case Kind::kSnapshotL1Unaligned:
    case Kind::kSnapshotL1TooLarge:
    case Kind::kBitmapDirectoryUnusable:
    case Kind::kBitmapTableUnusable:
    case Kind::kBitmapTableEntry:
    case Kind::kReferenceOutside:
      return true;
    default:
      return false;
  }
}

uint64_t be64(const std::vector<std::byte>& bytes, uint64_t at) {
  uint64_t value = 0;
  for (uint64_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

}  // namespace

TEST_CASE("a repair leaves no more than qemu-img's does, and can be taken back", "[repair]") {
  const support::TempDirectory folder;
  for (const Damage& damage : make_damages(folder.path())) {
    if (!damage.finds) continue;
    INFO(damage.name);
    const std::string ours = damage.path + ".ours";
    const std::string theirs = damage.path + ".theirs";
    fs::copy_file(damage.path, ours);
    fs::copy_file(damage.path, theirs);
    support::run({"qemu-img", "check", "-q", "-r", "all", "-f", "qcow2", theirs});
    const auto repaired = check({"-r", "all", "-f", "qcow2", ours});
    INFO(repaired.describe());
    CHECK(repaired.signal == 0);
    const QemuAnswer after_us = ask_qemu(ours);
    const QemuAnswer after_qemu = ask_qemu(theirs);
    INFO("after us: " << after_us.says << "\nafter qemu-img: " << after_qemu.says);
    if (after_qemu.has_json && damage.differs.empty() && !is_for_the_user(*damage.finds)) {
      CHECK(after_us.has_json);
      CHECK(trouble(after_us) <= trouble(after_qemu));
    }
    if (fs::exists(ours + ".undo")) {
      const auto undone = check({"--apply-undo", ours + ".undo", ours});
      INFO(undone.describe());
      CHECK(undone.ok());
    }
    CHECK((support::read_file(ours) == support::read_file(damage.path)));
    // Again makes no difference.
    if (fs::exists(ours + ".undo")) CHECK(check({"--apply-undo", ours + ".undo", ours}).ok());
    fs::remove(ours);
    fs::remove(theirs);
  }
}

TEST_CASE("refcounts are written from nothing", "[repair]") {
  const support::TempDirectory folder;
  const auto* const options =
      GENERATE("cluster_size=64k", "cluster_size=512,refcount_bits=64", "refcount_bits=2",
               "cluster_size=2M,refcount_bits=1", "compat=0.10,cluster_size=4k");
  INFO(options);
  const bool narrow = std::string(options).find("bits=1") != std::string::npos;
  const std::string path = folder / "image";
  if (narrow) {
    support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "8M"});
    support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 2M", path});
  } else {
    make_image(folder, options);
  }
  fs::copy_file(path, folder / "good");
  auto bytes = support::read_file(path);
  const uint64_t table = be64(bytes, 48);
  const auto how = GENERATE(0, 1, 2);
  if (how == 0) {
    // No table at all.
    std::fill_n(bytes.begin() + 48, 12, std::byte{0});
  } else if (how == 1) {
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(table), 8, std::byte{0});
  } else {
    const uint64_t block = be64(bytes, table);
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(block), 64, std::byte{0});
  }
  support::write_file(path, bytes);
  const auto repaired = check({"-r", "all", "--output=json", path});
  INFO(repaired.describe());
  CHECK(repaired.ok());
  support::run_ok({"qemu-img", "check", "-q", path});
  support::run_ok({"qemu-img", "compare", "-q", path, folder / "good"});
  // And it can be written to.
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 6M", path});
  support::run_ok({"qemu-img", "check", "-q", path});
}

TEST_CASE("a loss of power amid a repair makes nothing worse", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  const auto good = support::read_file(path);
  const auto rounds = support::iterations(12);
  for (uint64_t round = 0; round < rounds; ++round) {
    const uint64_t seed = support::base_seed() + round;
    CAPTURE(seed);
    support::Random random(seed);
    auto bytes = good;
    const uint64_t block = be64(bytes, be64(bytes, 48));
    // Counts that are anything, or none.
    if (random.chance(30)) {
      std::fill_n(bytes.begin() + 48, 12, std::byte{0});
    } else {
      const uint64_t clusters = bytes.size() / 4096;
      for (int i = 0; i < 20; ++i) {
        const uint64_t at = block + 2 * random.below(clusters);
        bytes[at + 1] = std::byte(random.below(4));
      }
    }
    const auto storage = std::make_shared<test::CrashStorage>(bytes);
    std::vector<std::vector<std::byte>> crashes;
    storage->crash_at_flushes(crashes, seed);
    const std::string undo = folder / ("undo" + std::to_string(round));
    Silent silent;
    const auto done = qcow2::repair(storage, {RepairOptions::What::kAll, {}, undo}, silent);
    REQUIRE_OK(done);
    CHECK(done->after.corruptions == 0);
    CHECK(done->after.leaks == 0);
    if (!done->has_written) continue;
    REQUIRE(!crashes.empty());
    for (const auto& crash : crashes) {
      support::write_file(folder / "crashed", crash);
      // QEMU opens none that has no refcounts.
      if (be64(crash, 48) != 0)
        support::run_ok({"qemu-img", "compare", "-q", "-U", folder / "crashed", path});
      // Another repair goes on, and the undo file takes back what there is.
      auto again = std::make_shared<qcow2::MemoryStorage>("crashed", crash);
      const std::string second = folder / "second";
      fs::remove(second);
      const auto mended = qcow2::repair(again, {RepairOptions::What::kAll, {}, second}, silent);
      REQUIRE_OK(mended);
      CHECK(mended->after.corruptions == 0);
      CHECK(mended->after.leaks == 0);
      qcow2::MemoryStorage back("crashed", crash);
      REQUIRE_OK(qcow2::apply_undo(undo, back));
      CHECK((back.bytes() == bytes));
    }
  }
}

TEST_CASE("leaks alone are mended with -r leaks", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  auto bytes = support::read_file(path);
  const uint64_t block = be64(bytes, be64(bytes, 48));
  const uint64_t clusters = bytes.size() / 65536;
  bytes.resize(bytes.size() + 65536);
  bytes[block + 2 * clusters + 1] = std::byte{1};  // nobody refers to the last one
  bytes[block + 1] = std::byte{2};                 // the header's
  support::write_file(path, bytes);
  const auto repaired = check({"-r", "leaks", "--output=json", path});
  INFO(repaired.describe());
  CHECK(repaired.ok());
  CHECK(nlohmann::json::parse(repaired.out)["leaks-fixed"] == 2);
  support::run_ok({"qemu-img", "check", "-q", path});
}

TEST_CASE("an undo file is for its image alone", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  auto bytes = support::read_file(path);
  const uint64_t block = be64(bytes, be64(bytes, 48));
  bytes[block + 1] = std::byte{7};
  support::write_file(path, bytes);
  CHECK(check({"-q", "-r", "all", path}).ok());
  auto other = support::read_file(path);
  other[block + 1] = std::byte{9};
  support::write_file(folder / "other", other);
  const auto refused = check({"--apply-undo", path + ".undo", folder / "other"});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Catch::Contains("is not what the repair"));
  CHECK((support::read_file(folder / "other") == other));
  const auto no_undo = check({"--apply-undo", path, path});
  CHECK_THAT(no_undo.err, Catch::Contains("is no undo file"));
  // One that is cut off was never acted on from there.
  auto undo = support::read_file(path + ".undo");
  undo.resize(undo.size() - 1);
  support::write_file(folder / "cut", undo);
  CHECK(check({"--apply-undo", path + ".undo", path}).ok());
  CHECK((support::read_file(path) == bytes));
}

}  // namespace checks
