#include "qcow2/write/snapshot_editor.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "storage/file_storage.h"
#include "tests/catch_text.h"
#include "tests/qcow2/write/crash_storage.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using namespace qcow2;
using support::Random;
using support::run_ok;

namespace {

using Bytes = std::vector<std::byte>;

// An image made by QEMU, with the contents of its disk and its snapshots (by name).
struct Twin {
  std::string path;
  bool version2 = false;
  Bytes disk;
  std::map<std::string, Bytes> snapshots;
};

constexpr uint64_t kDisk = 3 << 20;

Bytes read_disk(const Disk& disk) {
  Bytes bytes(disk.size());
  REQUIRE_OK(disk.read(GuestOffset(0), bytes));
  return bytes;
}

Twin make_image(const support::TempDirectory& folder, Random& random) {
  Twin twin;
  twin.path = folder / "disk";
  const unsigned bits = static_cast<unsigned>(random.between(9, 17));
  std::string options = "cluster_size=" + std::to_string(1u << bits);
  twin.version2 = random.chance(25);
  if (twin.version2) {
    options += ",compat=0.10";
  } else {
    options += ",refcount_bits=" + std::to_string(1u << random.between(3, 6));
    if (bits >= 14 && random.chance(50)) options += ",extended_l2=on";
    if (random.chance(25)) options += ",lazy_refcounts=on";
  }
  run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, twin.path, std::to_string(kDisk)});
  twin.disk.resize(kDisk);
  return twin;
}

// QEMU writes, zeroes, discards and compresses.
void let_qemu_write(Twin& twin, Random& random, unsigned requests) {
  std::vector<std::string> command{"qemu-io", "-f", "qcow2", "-d", "unmap"};
  for (unsigned i = 0; i < requests; ++i) {
    const uint64_t at = random.below(twin.disk.size() / 512) * 512;
    const uint64_t length = std::min<uint64_t>(random.between(1, 400) * 512, twin.disk.size() - at);
    const auto value = static_cast<unsigned>(random.between(1, 255));
    const bool zero = random.chance(20);
    const auto range = std::to_string(at) + " " + std::to_string(length);
    command.emplace_back("-c");
    command.push_back(zero ? "write -q -z -u " + range
                           : "write -q -P " + std::to_string(value) + " " + range);
    std::fill_n(twin.disk.begin() + static_cast<ptrdiff_t>(at), length,
                zero ? std::byte{0} : std::byte(value));
  }
  command.push_back(twin.path);
  run_ok(command);
}

// `leaks`: permits leaks, as after a loss of power.
void check_twin(const Twin& twin, bool leaks = false) {
  const auto check = support::run({"qemu-img", "check", "-f", "qcow2", twin.path});
  INFO(check.describe());
  REQUIRE((check.exit_code == 0 || (leaks && check.exit_code == 3)));
  OpenOptions options;
  options.format = Format::kQcow2;
  const auto chain = Chain::open(twin.path, options);
  REQUIRE_OK(chain);
  REQUIRE((read_disk(chain->disk()) == twin.disk));
  REQUIRE(chain->image()->snapshots().size() == twin.snapshots.size());
  for (const auto& [name, bytes] : twin.snapshots) {
    const auto disk = chain->snapshot(name);
    REQUIRE_OK(disk);
    REQUIRE((read_disk(*disk) == bytes));
  }
}

std::unique_ptr<SnapshotEditor> edit(const std::string& path) {
  OpenOptions options;
  options.writable = true;
  const auto chain = Chain::open(path, options);
  REQUIRE_OK(chain);
  auto editor = SnapshotEditor::open(*chain);
  REQUIRE_OK(editor);
  return std::move(*editor);
}

// A random operation.
struct Operation {
  enum class Kind { kCreate, kRemove, kApply } kind = Kind::kCreate;
  std::string name;

  static Operation draw(const Twin& twin, Random& random, unsigned number) {
    if (twin.snapshots.empty() || (twin.snapshots.size() < 4 && random.chance(45)))
      return {Kind::kCreate, "snapshot " + std::to_string(number)};
    auto any = twin.snapshots.begin();
    std::advance(any, random.below(twin.snapshots.size()));
    return {random.chance(60) ? Kind::kRemove : Kind::kApply, any->first};
  }

  Result<void> run(SnapshotEditor& editor) const {
    switch (kind) {
      case Kind::kCreate: {
        const auto id = editor.create(name, {1'700'000'000, 5});
        return id ? Result<void>{} : Result<void>(fail(id.error()));
      }
      case Kind::kRemove:
        return editor.remove(name);
      case Kind::kApply:
        break;
    }
    return editor.apply(name);
  }

  void run_by_qemu(const std::string& path) const {
    const char* const option = kind == Kind::kCreate ? "-c" : kind == Kind::kRemove ? "-d" : "-a";
    run_ok({"qemu-img", "snapshot", option, name, path});
  }

  void apply_to(Twin& twin) const {
    if (kind == Kind::kCreate) twin.snapshots[name] = twin.disk;
    if (kind == Kind::kRemove) twin.snapshots.erase(name);
    if (kind == Kind::kApply) twin.disk = twin.snapshots[name];
  }
};

}  // namespace

TEST_CASE("random operations on snapshots agree with QEMU", "[snapshots]") {
  const uint64_t images = support::iterations(10);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    CAPTURE(seed);
    Random random(seed);
    const support::TempDirectory folder;
    Twin twin = make_image(folder, random);
    for (unsigned step = 0; step < 10; ++step) {
      CAPTURE(step);
      if (random.chance(70)) let_qemu_write(twin, random, 6);
      // Snapshots differ in size. Version 2 cannot be resized with snapshots.
      if (!twin.version2 && random.chance(20)) {
        twin.disk.resize(twin.disk.size() + random.between(1, 3000) * 512);
        run_ok({"qemu-img", "resize", "-q", "-f", "qcow2", twin.path,
                std::to_string(twin.disk.size())});
      }
      const Operation operation = Operation::draw(twin, random, step);
      if (random.chance(30)) {
        operation.run_by_qemu(twin.path);
      } else {
        const auto editor = edit(twin.path);
        REQUIRE_OK(operation.run(*editor));
        REQUIRE_OK(editor->close());
      }
      operation.apply_to(twin);
      check_twin(twin);
    }
  }
}

TEST_CASE("a loss of power leaves the old or the new snapshots", "[snapshots]") {
  const uint64_t images = support::iterations(8);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    CAPTURE(seed);
    Random random(seed);
    const support::TempDirectory folder;
    Twin twin = make_image(folder, random);
    let_qemu_write(twin, random, 10);
    for (unsigned step = 0; step < 4; ++step) {
      const Operation operation = Operation::draw(twin, random, step);
      CAPTURE(step, static_cast<int>(operation.kind), operation.name);
      Twin after = twin;
      operation.apply_to(after);
      const auto storage = std::make_shared<test::CrashStorage>(support::read_file(twin.path));
      std::vector<Bytes> crashes;
      storage->crash_at_flushes(crashes, seed + step);
      auto editor = SnapshotEditor::open(storage);
      REQUIRE_OK(editor);
      REQUIRE_OK(operation.run(**editor));
      REQUIRE_OK((*editor)->close());
      REQUIRE(crashes.size() >= 4);
      std::shuffle(crashes.begin(), crashes.end(), std::mt19937_64(seed));
      crashes.resize(std::min<size_t>(crashes.size(), 12));

      const std::string path = twin.path;
      twin.path = after.path = folder / "crashed";
      for (const Bytes& crash : crashes) {
        support::write_file(twin.path, crash);
        // The next open rebuilds the refcounts. In version 2, QEMU has no mark for that.
        if (!twin.version2) {
          REQUIRE_OK(edit(twin.path)->close());
        } else {
          // Refcounts may be too high, and COPIED flags missing. Both are harmless and can be
          // repaired.
          const auto check = support::run({"qemu-img", "check", "-r", "all", twin.path});
          INFO(check.describe());
          REQUIRE(check.exit_code == 0);
        }
        const auto chain = Chain::open(twin.path, {});
        REQUIRE_OK(chain);
        const bool done = operation.kind == Operation::Kind::kApply
                              ? read_disk(chain->disk()) == after.disk
                              : chain->image()->snapshots().size() == after.snapshots.size();
        check_twin(done ? after : twin, true);
      }
      support::write_file(path, storage->after_crash(*std::make_unique<std::mt19937_64>(seed)));
      twin = after;
      twin.path = path;
      check_twin(twin);
      let_qemu_write(twin, random, 4);
    }
  }
}

TEST_CASE("deleting a snapshot deallocates its data, and the file shrinks", "[snapshots]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "64M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 32M", path});
  REQUIRE_OK(edit(path)->create("before", {}));
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 2 0 32M", path});
  REQUIRE(std::filesystem::file_size(path) > 64 << 20);
  {
    const auto editor = edit(path);
    CHECK(editor->snapshots().front().name == "before");
    REQUIRE_OK(editor->remove("1"));
    REQUIRE_OK(editor->close());
  }
  CHECK(std::filesystem::file_size(path) < 34 << 20);
  run_ok({"qemu-img", "check", "-q", path});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "read -q -P 2 0 32M", path});
}

TEST_CASE("a snapshot that needs wider refcounts is refused before anything changes",
          "[snapshots]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk";
  const auto bits = GENERATE(1, 2);
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "refcount_bits=" + std::to_string(bits),
          path, "1M"});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", path});
  const unsigned fit = (1u << bits) - 2;
  for (unsigned i = 0; i < fit; ++i) {
    const auto editor = edit(path);
    REQUIRE_OK(editor->create("s" + std::to_string(i), {}));
    REQUIRE_OK(editor->close());
  }
  const auto before = support::read_file(path);
  REQUIRE_FAILS_WITH(edit(path)->create("one more", {}), "cannot hold one more");
  CHECK((support::read_file(path) == before));
}

TEST_CASE("many compressed clusters in one host cluster do not overflow its refcount",
          "[snapshots]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "raw", folder / "raw", "1M"});
  run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 1 0 1M", folder / "raw"});
  // 16 tiny compressed clusters share a host cluster, whose refcount has 4 bits.
  run_ok({"qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o",
          "cluster_size=128k,refcount_bits=4", folder / "raw", path});
  REQUIRE_OK(edit(path)->close());
  REQUIRE_FAILS_WITH(edit(path)->create("too many", {}), "refcount");
  // The failed operation has undone its refcounts.
  run_ok({"qemu-img", "check", "-q", path});
}

TEST_CASE("unknown snapshots and invalid names are refused", "[snapshots]") {
  const support::TempDirectory folder;
  const std::string path = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", path, "1M"});
  REQUIRE_FAILS_WITH(edit(path)->remove("x"), "there is no snapshot 'x'");
  REQUIRE_FAILS_WITH(edit(path)->apply("x"), "there is no snapshot 'x'");
  REQUIRE_FAILS_WITH(edit(path)->create("", {}), "needs a name");
  REQUIRE_FAILS_WITH(edit(path)->create(std::string(256, 'x'), {}), "255 bytes at most");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + (folder / "data"),
          folder / "other", "1M"});
  OpenOptions options;
  options.writable = true;
  const auto chain = Chain::open(folder / "other", options);
  REQUIRE_OK(chain);
  REQUIRE_FAILS_WITH(SnapshotEditor::open(*chain), "external data file");
}
