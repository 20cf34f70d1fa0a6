// Tests repairs: qemu-img's findings afterwards, and undoing them.
#include <atomic>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "qcow2/repair/repair.h"
#include "qcow2/repair/undo_file.h"
#include "tests/catch_text.h"
#include "tests/qcow2/check/both_checks.h"
#include "tests/qcow2/check/damages.h"
#include "tests/qcow2/write/crash_storage.h"
#include "tests/support/command_line.h"
#include "tests/support/dirty_bits.h"
#include "tests/support/memory_storage.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::checks {

namespace fs = std::filesystem;
using qcow2::RepairOptions;

namespace {

// Ignores all findings, and never stops.
class Silent final : public qcow2::CheckObserver {
 public:
  void found(const qcow2::Finding&) override {}
};

support::Outcome check(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{tool_test::virt_compact(), "check"};
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

// Returns true for damage in tables of snapshots or bitmaps. qemu-img drops them; we leave the
// decision to the user.
bool is_for_the_user(qcow2::Finding::Kind kind) {
  using Kind = qcow2::Finding::Kind;
  switch (kind) {
    case Kind::kSnapshotTableUnusable:
    case Kind::kSnapshotsTooMany:
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

TEST_CASE("a repair leaves no more errors than qemu-img's, and can be undone", "[repair]") {
  const support::TempDirectory folder;
  for (const Damage& damage : make_damages(folder.path())) {
    if (!damage.finds) continue;
    INFO(damage.name);
    const std::string ours = damage.path + ".ours";
    const std::string theirs = damage.path + ".theirs";
    fs::copy_file(damage.path, ours);
    fs::copy_file(damage.path, theirs);
    support::run({"qemu-img", "check", "-q", "-r", "all", "-f", "qcow2", theirs});
    const auto repaired = check({"-r", "all", "--lossy", "-f", "qcow2", ours});
    INFO(repaired.describe());
    CHECK(repaired.signal == 0);
    const QemuAnswer after_us = ask_qemu(ours);
    const QemuAnswer after_qemu = ask_qemu(theirs);
    INFO("after us: " << after_us.says << "\nafter qemu-img: " << after_qemu.says);
    // QEMU repairs entries that overlap other structures by overwriting these structures.
    const bool left =
        repaired.out.find("Entries of tables that overlap another structure were not changed") !=
        std::string::npos;
    if (after_qemu.has_json && damage.differs.empty() && !is_for_the_user(*damage.finds) && !left) {
      CHECK(after_us.has_json);
      CHECK(trouble(after_us) <= trouble(after_qemu));
    }
    if (fs::exists(ours + ".undo")) {
      const auto undone = check({"--apply-undo", ours + ".undo", ours});
      INFO(undone.describe());
      CHECK(undone.ok());
    }
    CHECK((support::read_file(ours) == support::read_file(damage.path)));
    // A second undo changes nothing.
    if (fs::exists(ours + ".undo")) CHECK(check({"--apply-undo", ours + ".undo", ours}).ok());
    fs::remove(ours);
    fs::remove(theirs);
  }
}

TEST_CASE("refcounts are rebuilt without a refcount table", "[repair]") {
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
    // Removes the refcount table.
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
  // The repaired image can be written to.
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 6M", path});
  support::run_ok({"qemu-img", "check", "-q", path});
}

TEST_CASE("a loss of power during a repair makes nothing worse", "[repair]") {
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
    // Random refcounts, or none.
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
    const auto done = qcow2::repair(storage, {RepairOptions::What::kAll, {}, false, undo}, silent);
    REQUIRE_OK(done);
    CHECK(done->after.corruptions == 0);
    // The data of a table that is partly zeros may look like leaks.
    CHECK((done->after.leaks == 0 || done->after.references_lost));
    if (!done->has_written) continue;
    REQUIRE(!crashes.empty());
    for (const auto& crash : crashes) {
      support::write_file(folder / "crashed", crash);
      // QEMU opens no image without a refcount table.
      if (be64(crash, 48) != 0)
        support::run_ok({"qemu-img", "compare", "-q", "-U", folder / "crashed", path});
      // Another repair continues, and the undo file restores the original bytes.
      auto again = std::make_shared<qcow2::MemoryStorage>("crashed", crash);
      const std::string second = folder / "second";
      fs::remove(second);
      const auto mended =
          qcow2::repair(again, {RepairOptions::What::kAll, {}, false, second}, silent);
      REQUIRE_OK(mended);
      CHECK(mended->after.corruptions == 0);
      CHECK((mended->after.leaks == 0 || mended->after.references_lost));
      qcow2::MemoryStorage back("crashed", crash);
      REQUIRE_OK(qcow2::apply_undo(undo, back));
      CHECK((back.bytes() == bytes));
    }
  }
}

TEST_CASE("-r leaks repairs only leaks", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  auto bytes = support::read_file(path);
  const uint64_t block = be64(bytes, be64(bytes, 48));
  const uint64_t clusters = bytes.size() / 65536;
  bytes.resize(bytes.size() + 65536);
  bytes[block + 2 * clusters + 1] = std::byte{1};  // unreferenced
  bytes[block + 1] = std::byte{2};                 // of the header
  support::write_file(path, bytes);
  const auto repaired = check({"-r", "leaks", "--output=json", path});
  INFO(repaired.describe());
  CHECK(repaired.ok());
  CHECK(nlohmann::json::parse(repaired.out)["leaks-fixed"] == 2);
  support::run_ok({"qemu-img", "check", "-q", path});
}

TEST_CASE("an undo file applies only to its own image", "[repair]") {
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
  CHECK_THAT(refused.err, Catch::Contains("is not as the repair"));
  CHECK((support::read_file(folder / "other") == other));
  const auto no_undo = check({"--apply-undo", path, path});
  CHECK_THAT(no_undo.err, Catch::Contains("is not an undo file"));
  // Bytes past the end of the truncated undo file were never needed.
  auto undo = support::read_file(path + ".undo");
  undo.resize(undo.size() - 1);
  support::write_file(folder / "cut", undo);
  CHECK(check({"--apply-undo", path + ".undo", path}).ok());
  CHECK((support::read_file(path) == bytes));
}

TEST_CASE("an undo file is refused if the image was changed since", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  auto bytes = support::read_file(path);
  const uint64_t block = be64(bytes, be64(bytes, 48));
  const uint64_t clusters = bytes.size() / 65536;
  bytes.resize(bytes.size() + 65536);
  bytes[block + 2 * clusters + 1] = std::byte{1};
  support::write_file(path, bytes);
  CHECK(check({"-q", "-r", "all", path}).ok());
  const auto refused = [&](const std::string& image, const std::string& undo, const char* why) {
    const auto before = support::read_file(image);
    const auto outcome = check({"--apply-undo", undo, image});
    INFO(outcome.describe());
    CHECK(outcome.exit_code == 1);
    CHECK_THAT(outcome.err, Catch::Contains(why));
    CHECK((support::read_file(image) == before));
  };

  SECTION("a guest has written, and the file is longer") {
    support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 6M 1M", path});
    refused(path, path + ".undo", "written since");
  }
  SECTION("another image with similar refcounts") {
    const support::TempDirectory other;
    const std::string image = make_image(other, "cluster_size=64k");
    support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 6M 1M", image});
    refused(image, path + ".undo", "another image");
  }
  SECTION("the image was truncated") {
    support::resize_file(path, bytes.size() - 3 * 65536);
    refused(path, path + ".undo", "its length");
  }
  SECTION("the undo file is empty or damaged") {
    auto undo = support::read_file(path + ".undo");
    undo.resize(24);
    support::write_file(folder / "empty", undo);
    refused(path, folder / "empty", "contains nothing");
    undo = support::read_file(path + ".undo");
    undo[40] ^= std::byte{1};
    support::write_file(folder / "damaged", undo);
    refused(path, folder / "damaged", "is damaged");
    undo[9] ^= std::byte{1};
    support::write_file(folder / "header", undo);
    refused(path, folder / "header", "is damaged at its start");
  }
  CHECK(fs::exists(path + ".undo"));
}

TEST_CASE("a repair that could not begin leaves no undo file", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  auto bytes = support::read_file(path);
  bytes[be64(bytes, be64(bytes, 48)) + 1] = std::byte{2};
  const auto image = std::make_shared<qcow2::MemoryStorage>("image", bytes);
  Silent silent;
  const auto done =
      qcow2::repair(image, {RepairOptions::What::kAll, {}, false, "/dev/full/undo"}, silent);
  CHECK(!done);
  CHECK((image->bytes() == bytes));
}

namespace {

// A storage with unreadable sectors.
class FaultyStorage final : public Storage {
 public:
  FaultyStorage(std::vector<std::byte> bytes, uint64_t bad)
      : memory_("faulty", std::move(bytes)), bad_(bad) {}
  const std::string& name() const override { return memory_.name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override {
    if (at.value() <= bad_ && bad_ < at.value() + to.size())
      return fail(Error::system(EIO, "faulty: read"));
    return memory_.read(at, to);
  }
  Result<void> write(HostOffset at, std::span<const std::byte> from) override {
    return memory_.write(at, from);
  }
  Result<void> flush() override { return memory_.flush(); }
  Result<uint64_t> size() const override { return memory_.size(); }
  Result<void> resize(uint64_t size) override { return memory_.resize(size); }
  Result<Run> run_at(HostOffset at, uint64_t limit) const override {
    return memory_.run_at(at, limit);
  }
  std::vector<std::byte> bytes() const { return memory_.bytes(); }

 private:
  qcow2::MemoryStorage memory_;
  uint64_t bad_;
};

void put64(std::vector<std::byte>& bytes, uint64_t at, uint64_t value) {
  for (uint64_t i = 0; i < 8; ++i) bytes[at + i] = std::byte(value >> (56 - 8 * i) & 0xff);
}

}  // namespace

TEST_CASE("clusters of an unreadable table are not freed", "[repair]") {
  const support::TempDirectory folder;
  const auto bytes = support::read_file(make_image(folder, "cluster_size=64k"));
  const uint64_t l1 = be64(bytes, 40);
  const uint64_t l2 = be64(bytes, l1) & 0x00fffffffffffe00;
  const auto what = GENERATE(RepairOptions::What::kLeaks, RepairOptions::What::kAll);
  for (const uint64_t bad : {l1, l2, be64(bytes, 64) /* snapshot table's L1 */}) {
    CAPTURE(bad);
    const auto storage = std::make_shared<FaultyStorage>(bytes, bad);
    Silent silent;
    const auto done = qcow2::repair(storage, {what, {}, false, folder / "undo"}, silent);
    CHECK((storage->bytes() == bytes));
    if (done) {
      CHECK(done->after.check_errors > 0);
      CHECK(!done->has_written);
    }
  }
}

// Each of these damages hides references, or makes data look like a table.
TEST_CASE("a repair changes nothing where data may be hidden", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  const auto good = support::read_file(path);
  const uint64_t l1 = be64(good, 40);
  const uint64_t l2 = be64(good, l1) & 0x00fffffffffffe00;
  const uint64_t snapshots = be64(good, 64);
  const uint64_t data = be64(good, l2) & 0x00fffffffffffe00;
  const uint64_t reftable = be64(good, 48);
  const uint64_t block = be64(good, reftable);

  struct Hiding {
    const char* name;
    std::function<void(std::vector<std::byte>&)> edit;
  };
  const std::vector<Hiding> damages = {
      {"a snapshot's L1 table wraps around",
       [&](auto& it) {
         put64(it, snapshots, 0xffffffffffff0000);
         it[snapshots + 9] = std::byte{0x40};  // 2^22 entries
       }},
      {"a snapshot's L1 table on data", [&](auto& it) { put64(it, snapshots, data); }},
      {"a snapshot's L1 table not at a cluster",
       [&](auto& it) { put64(it, snapshots, be64(good, snapshots) + 0x200); }},
      {"an L1 entry points to data", [&](auto& it) { put64(it, l1, data | uint64_t{1} << 63); }},
      {"an L1 entry not at a cluster", [&](auto& it) { put64(it, l1, be64(good, l1) ^ 0x200); }},
      {"an L2 entry out of the file",
       [&](auto& it) { put64(it, l2, be64(good, l2) ^ uint64_t{1} << 40); }},
      {"an L2 entry points to the L1 table",
       [&](auto& it) { put64(it, l2, l1 | uint64_t{1} << 63); }},
      {"the refcount table points to data", [&](auto& it) { put64(it, reftable, data); }},
      {"a snapshot with too much extra data, and a count of nothing",
       [&](auto& it) {
         it[snapshots + 37] = std::byte{1};
         it[block + 2 * (data / 65536) + 1] = std::byte{0};
       }},
  };
  // All clusters in use according to the intact image. Other clusters may be written or freed.
  std::vector<uint64_t> used;
  for (uint64_t cluster = 0; cluster < good.size() / 65536; ++cluster)
    if (good[block + 2 * cluster + 1] != std::byte{0}) used.push_back(cluster);

  const std::string how = GENERATE("leaks", "all");
  for (const Hiding& damage : damages) {
    INFO(damage.name << " -r " << how);
    auto bytes = good;
    damage.edit(bytes);
    const auto storage = std::make_shared<qcow2::MemoryStorage>("image", bytes);
    Silent silent;
    const std::string undo = folder / "undo";
    fs::remove(undo);
    const auto what = how == "all" ? RepairOptions::What::kAll : RepairOptions::What::kLeaks;
    const auto done = qcow2::repair(storage, {what, {}, false, undo}, silent);
    if (!done) {
      INFO(done.error().message());
      CHECK((storage->bytes() == bytes));
      continue;
    }
    const auto now = storage->bytes();
    // The refcounts of the block that the refcount table now points to.
    const uint64_t counts = be64(now, be64(now, 48));
    for (const uint64_t cluster : used) {
      CAPTURE(cluster);
      const bool counted = cluster * 65536 == block || counts != block ||
                           now[counts + 2 * cluster] != std::byte{0} ||
                           now[counts + 2 * cluster + 1] != std::byte{0} ||
                           bytes[block + 2 * cluster + 1] == std::byte{0};
      CHECK(counted);
    }
    // The guest's data is unchanged, also in the snapshot.
    const uint64_t l2_entries = 8 * 1024 * 1024 / 65536;
    for (uint64_t i = 0; i < l2_entries; ++i) {
      const uint64_t entry = be64(good, l2 + 8 * i);
      const uint64_t at = entry & 0x00fffffffffffe00;
      if (at == 0 || (entry >> 62 & 1) != 0) continue;
      CAPTURE(at);
      CHECK(std::equal(good.begin() + static_cast<ptrdiff_t>(at),
                       good.begin() + static_cast<ptrdiff_t>(at + 65536),
                       now.begin() + static_cast<ptrdiff_t>(at)));
    }
  }
}

namespace {

void put32(std::vector<std::byte>& bytes, uint64_t at, uint32_t value) {
  for (uint64_t i = 0; i < 4; ++i) bytes[at + i] = std::byte(value >> (24 - 8 * i) & 0xff);
}

// Sets the size of extra data in the only entry of the snapshot table.
void set_extra(std::vector<std::byte>& bytes, uint64_t size) {
  const auto row = bytes.begin() + static_cast<ptrdiff_t>(be64(bytes, 64));
  const auto extra = static_cast<ptrdiff_t>(std::to_integer<unsigned>(row[39]));
  // ID "1" and name "s".
  std::vector<std::byte> made(row,
                              row + 40 + std::min<ptrdiff_t>(extra, static_cast<ptrdiff_t>(size)));
  made.resize(40 + size, std::byte{0x55});
  made.insert(made.end(), row + 40 + extra, row + 42 + extra);
  std::fill(row, row + 40 + extra + 2, std::byte{0});
  std::copy(made.begin(), made.end(), row);
  put32(bytes, be64(bytes, 64) + 36, static_cast<uint32_t>(size));
}

}  // namespace

TEST_CASE("snapshots with missing or extra fields are repaired without a loss", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=4k");
  fs::copy_file(path, folder / "good");
  support::run_ok({"qemu-img", "convert", "-l", "s", "-O", "raw", path, folder / "then"});
  support::run_ok({"qemu-img", "convert", "-O", "raw", path, folder / "now"});
  auto bytes = support::read_file(path);
  const auto damage = GENERATE(0, 8, 15, 1100, 2000, -1);
  CAPTURE(damage);
  if (damage < 0)
    put32(bytes, 60, UINT32_MAX);
  else
    set_extra(bytes, static_cast<uint64_t>(damage));
  support::write_file(path, bytes);
  CHECK_FALSE(check({"-q", path}).ok());
  const auto repaired = check({"-r", "all", path});
  INFO(repaired.describe());
  CHECK(repaired.ok());
  support::run_ok({"qemu-img", "check", "-q", path});
  support::run_ok({"qemu-img", "convert", "-l", "s", "-O", "raw", path, folder / "s"});
  CHECK((support::read_file(folder / "s") == support::read_file(folder / "then")));
  support::run_ok({"qemu-img", "compare", "-q", "-F", "raw", path, folder / "now"});
  CHECK(check({"--apply-undo", path + ".undo", path}).ok());
  CHECK((support::read_file(path) == bytes));
}

namespace {

// Reads at one place fail from the n-th on.
class FailingLater final : public Storage {
 public:
  FailingLater(std::vector<std::byte> bytes, uint64_t bad, int good_reads)
      : memory_("failing", std::move(bytes)), bad_(bad), good_reads_(good_reads) {}
  const std::string& name() const override { return memory_.name(); }
  Result<size_t> read(HostOffset at, std::span<std::byte> to) const override {
    if (at.value() <= bad_ && bad_ < at.value() + to.size() && reads_++ >= good_reads_)
      return fail(Error::system(EIO, "failing: read"));
    return memory_.read(at, to);
  }
  Result<void> write(HostOffset at, std::span<const std::byte> from) override {
    return memory_.write(at, from);
  }
  Result<void> flush() override { return memory_.flush(); }
  Result<uint64_t> size() const override { return memory_.size(); }
  Result<void> resize(uint64_t size) override { return memory_.resize(size); }
  Result<Run> run_at(HostOffset at, uint64_t limit) const override {
    return memory_.run_at(at, limit);
  }
  int reads() const { return reads_; }
  std::vector<std::byte> bytes() const { return memory_.bytes(); }

 private:
  qcow2::MemoryStorage memory_;
  const uint64_t bad_;
  const int good_reads_;
  mutable std::atomic<int> reads_{0};
};

}  // namespace

TEST_CASE("a refcount block that overlaps data is moved without a loss", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  auto bytes = support::read_file(path);
  const uint64_t block = be64(bytes, be64(bytes, 48));
  const uint64_t l2 = be64(bytes, be64(bytes, 40)) & 0x00fffffffffffe00;
  // The entry of guest offset 0x200000, which was never written.
  put64(bytes, l2 + 8 * 32, block | uint64_t{1} << 63);
  support::write_file(path, bytes);
  const std::vector<std::byte> content(bytes.begin() + static_cast<ptrdiff_t>(block),
                                       bytes.begin() + static_cast<ptrdiff_t>(block + 65536));
  const auto repaired = check({"-r", "all", path});
  INFO(repaired.describe());
  CHECK(repaired.ok());
  support::run_ok({"qemu-img", "check", "-q", path});
  support::run_ok({"qemu-img", "convert", "-O", "raw", path, folder / "raw"});
  const auto raw = support::read_file(folder / "raw");
  CHECK(std::equal(content.begin(), content.end(), raw.begin() + (2 << 20)));
  // Writing to it does not damage the refcounts.
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 9 2M 64k", path});
  support::run_ok({"qemu-img", "check", "-q", path});
}

// A table that the check could read, but the rebuild cannot, must not be skipped.
TEST_CASE("a table that becomes unreadable ends a repair", "[repair]") {
  const support::TempDirectory folder;
  const std::string path = make_image(folder, "cluster_size=64k");
  const auto good = support::read_file(path);
  const uint64_t l2 = be64(good, be64(good, 40)) & 0x00fffffffffffe00;
  auto bytes = good;
  const bool rebuild = GENERATE(true, false);
  if (rebuild)
    std::fill_n(bytes.begin() + 48, 12, std::byte{0});
  else
    bytes[be64(bytes, be64(bytes, 48)) + 1] = std::byte{2};
  bool succeeded = false;
  for (int reads = 0; reads < 40 && !succeeded; ++reads) {
    CAPTURE(reads);
    const auto storage = std::make_shared<FailingLater>(bytes, l2, reads);
    Silent silent;
    const auto done = qcow2::repair(storage, {RepairOptions::What::kAll, {}, false, ""}, silent);
    succeeded = done && done->after.check_errors == 0;
    support::write_file(folder / "after", storage->bytes());
    // In any case, no cluster in use has a refcount that is too low.
    const auto after = ask_us(folder / "after");
    INFO(after.says);
    if (be64(storage->bytes(), 48) != 0) CHECK(!after.has(qcow2::Finding::Kind::kRefcountTooLow));
  }
  CHECK(succeeded);
}

TEST_CASE("a repair that changes what the guest reads makes bitmaps invalid", "[repair]") {
  const support::TempDirectory folder;
  const std::string image = folder / "disk";
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, "4M"});
  support::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 128k", image});
  support::run_ok({"qemu-img", "bitmap", "--add", image, "one"});
  support::run_ok({"qemu-img", "bitmap", "--add", "--disable", image, "old"});
  const auto bytes = support::read_file(image);
  const uint64_t l2 = be64(bytes, be64(bytes, 40)) & qcow2::kEntryOffsetMask;
  const bool content = GENERATE(true, false);
  auto word = be64(bytes, l2);
  // A reserved bit, or only a missing COPIED flag.
  word ^= content ? uint64_t{1} << 60 : qcow2::kEntryCopied;
  auto changed = bytes;
  for (unsigned i = 0; i < 8; ++i)
    changed[l2 + i] = std::byte{static_cast<unsigned char>(word >> (56 - 8 * i))};
  support::write_file(image, changed);
  check({"-r", "all", "-f", "qcow2", image});
  REQUIRE(check({"-f", "qcow2", image}).ok());
  CHECK(support::has_bitmap_flag(image, "one", "in-use") == content);
  CHECK_FALSE(support::has_bitmap_flag(image, "old", "in-use"));
}

}  // namespace vc::checks
