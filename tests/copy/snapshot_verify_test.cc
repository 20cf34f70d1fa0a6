// Verification of the internal snapshots of a copy.
#include <fmt/format.h>

#include <functional>

#include "base/byte_order.h"
#include "copy/copy_plan.h"
#include "copy/copy_source.h"
#include "copy/sink/file_destination.h"
#include "copy/snapshot_copy.h"
#include "copy/transfer.h"
#include "qcow2/format/l2_entry.h"
#include "tests/catch_text.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::run_ok;
using support::TempDirectory;

namespace {

class Quiet final : public Progress {
 public:
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
};

// Makes a disk with two snapshots. The first has a cluster of its own, and VM state.
std::string make_disk(const TempDirectory& folder) {
  const std::string disk = folder / "disk.qcow2";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, "20M"});
  run_ok({"qemu-io", "-c", "write -q -P 3 1M 1M", disk});
  support::RunOptions machine;
  machine.input = "savevm one\nquit\n";
  run_ok({"qemu-system-x86_64", "-accel", "tcg", "-S", "-display", "none", "-M", "pc", "-m", "8",
          "-nodefaults", "-vga", "none", "-drive", "if=virtio,format=qcow2,file=" + disk,
          "-monitor", "stdio"},
         machine);
  run_ok({"qemu-io", "-c", "write -q -P 4 1M 64k", disk});
  run_ok({"qemu-img", "snapshot", "-c", "two", disk});
  return disk;
}

// A finished copy that has no name yet.
class Copy {
 public:
  explicit Copy(const TempDirectory& folder) {
    options_.source = make_disk(folder);
    options_.destination = folder / "copy.qcow2";
    options_.verify = true;
    options_.snapshots.emplace();
    auto source = copy::CopySource::open(options_, cancel_, stop_);
    REQUIRE_OK(source);
    source_ = std::move(*source);
    transfer_.emplace(options_, *source_, progress_, cancel_, stop_);
    copy::DestinationType file;
    auto plan = copy::CopyPlan::create(options_, file, source_->get());
    REQUIRE_OK(plan);
    plan_ = std::move(*plan);
    auto snapshots = copy::SnapshotCopy::open(options_, *source_, plan_);
    REQUIRE_OK(snapshots);
    snapshots_ = std::move(*snapshots);
    transfer_->carry(*snapshots_);
    auto made = copy::Qcow2Destination::create(options_.destination, false, plan_.build,
                                               copy::Preallocation::kOff);
    REQUIRE_OK(made);
    made_ = std::move(*made);
    REQUIRE_OK(transfer_->run(made_->sink(), plan_, made_->image_sink()));
    REQUIRE_OK(made_->write_out());
  }

  std::string path() const { return *made_->path_to_read(); }

  Result<void> verify() {
    const auto copied = copy::LocalSource::open(path(), {});
    REQUIRE_OK(copied);
    copy::VerifySummary summary;
    return snapshots_->verify((*copied)->chain(), transfer_->parts(), cancel_, summary);
  }

 private:
  copy::CopyOptions options_;
  const Cancel cancel_;
  Stop stop_{cancel_};
  Quiet progress_;
  std::optional<copy::CopySource> source_;
  copy::CopyPlan plan_;
  std::optional<copy::Transfer> transfer_;
  std::unique_ptr<copy::SnapshotCopy> snapshots_;
  std::unique_ptr<copy::Qcow2Destination> made_;
};

// The tables of a snapshot in a file.
struct Tables {
  explicit Tables(const std::string& path, size_t number) : bytes(support::read_file(path)) {
    const uint64_t table = load_be64(&bytes[64]);
    uint64_t at = table;
    for (size_t i = 0; i < number; ++i)
      at = (at + 40 + load_be32(&bytes[at + 36]) + load_be16(&bytes[at + 12]) +
            load_be16(&bytes[at + 14]) + 7) /
           8 * 8;
    entry = at;
    l1 = load_be64(&bytes[at]);
    l2 = load_be64(&bytes[l1]) & qcow2::kEntryOffsetMask;
  }
  uint64_t word(uint64_t at) const { return load_be64(&bytes[at]); }

  std::vector<std::byte> bytes;
  uint64_t entry;  // offsets in the file
  uint64_t l1;
  uint64_t l2;
};

void put64(const std::string& path, uint64_t at, uint64_t value) {
  std::array<std::byte, 8> bytes{};
  store_be64(bytes.data(), value);
  support::patch_file(path, at, bytes);
}

void put_byte(const std::string& path, uint64_t at) {
  const std::array<std::byte, 1> byte{std::byte{0x5a}};
  support::patch_file(path, at, byte);
}

void is_found(const std::function<void(const std::string&, const Tables&)>& damage,
              const std::string& message) {
  const TempDirectory folder;
  Copy copy(folder);
  REQUIRE_OK(copy.verify());
  damage(copy.path(), Tables(copy.path(), 0));
  const auto found = copy.verify();
  REQUIRE_FALSE(found);
  CHECK_THAT(found.error().message(), Contains("snapshot 'one'") && Contains(message));
}

}  // namespace

TEST_CASE("verification finds wrong data, entries and fields of snapshots", "[copy][verify]") {
  const uint64_t own = (1 << 20) / 65536;  // the cluster that only the first snapshot has
  SECTION("a cluster of the snapshot") {
    is_found(
        [&](const std::string& path, const Tables& tables) {
          put_byte(path, (tables.word(tables.l2 + own * 8) & qcow2::kEntryOffsetMask) + 17);
        },
        "differs from its source");
  }
  SECTION("an entry for a shared cluster") {
    is_found(
        [&](const std::string& path, const Tables& tables) {
          put64(path, tables.l2 + (own + 1) * 8, tables.word(tables.l2 + (own + 2) * 8));
        },
        "guest offset 0x110000 differs");
  }
  SECTION("an entry for a shared cluster that reads as zeros") {
    is_found(
        [&](const std::string& path, const Tables& tables) {
          put64(path, tables.l2 + 8, tables.word(tables.l2 + own * 8));
        },
        "guest offset 0x10000 differs");
  }
  SECTION("the VM state") {
    is_found(
        [&](const std::string& path, const Tables& tables) {
          const uint64_t vm_l2 = tables.word(tables.l1 + 8) & qcow2::kEntryOffsetMask;
          put_byte(path, (tables.word(vm_l2) & qcow2::kEntryOffsetMask) + 1000);
        },
        "differs from its source");
  }
  SECTION("a field of the table") {
    is_found([&](const std::string& path,
                 const Tables& tables) { put64(path, tables.entry + 24, 12345); },
             "the entry in the snapshot table differs");
  }
}
