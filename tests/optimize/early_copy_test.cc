// Tests a copy that starts before the rest of its source is known.
#include "optimize/early_copy.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "copy/source/local_source.h"
#include "optimize/free_space_plan.h"
#include "tests/catch_text.h"
#include "tests/copy/disks.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using copy::LocalSource;
using optimize::EarlyCopy;
using support::run_ok;
using support::TempDirectory;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kDisk = 6 * kMiB + 37 * 512;
constexpr uint64_t kEnd = 2 * kMiB;

class Updates final : public Progress {
 public:
  void update(uint64_t /*done*/, uint64_t /*total*/) override { ++count; }
  std::atomic<unsigned> count{0};
};

// A disk with an overlay.
class Disk {
 public:
  Disk() {
    test::make_lived_in_raw(folder_ / "raw", support::base_seed(), kDisk);
    run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder_ / "raw", path()});
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", path(), "-F", "qcow2", overlay()});
  }

  std::string path() const { return folder_ / "disk"; }
  std::string overlay() const { return folder_ / "overlay"; }
  std::string out() const { return folder_ / "out"; }
  bool has_out() const { return support::list_directory(folder_.path()).size() == 4; }
  void write(const std::string& image, const char* what) const {
    run_ok({"qemu-io", "-f", "qcow2", "-c", std::string("write -q -P 7 ") + what, image});
  }
  copy::CopyOptions how() const {
    copy::CopyOptions options = test::from_to(path(), out());
    options.verify = true;
    return options;
  }

 private:
  const TempDirectory folder_;
};

std::unique_ptr<LocalSource> open(const std::string& path) {
  auto source = LocalSource::open(path, {});
  REQUIRE_OK(source);
  return std::move(*source);
}

// Waits long enough for the copy to reach the missing rest.
void wait_for_a_while() {
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
}

}  // namespace

TEST_CASE("the rest of an early copy is read from the overlay", "[early]") {
  const Disk disk;
  Cancel work;
  Updates updates;
  EarlyCopy early(disk.how(), kEnd, updates, work);
  disk.write(disk.overlay(), "2M 1M");
  wait_for_a_while();
  CHECK(updates.count == 0);
  CHECK_FALSE(early.failure());
  CHECK_FALSE(disk.has_out());
  const auto done = early.finish(open(disk.overlay()));
  REQUIRE_OK(done);
  CHECK(done->verified.has_value());
  CHECK(updates.count > 0);
  CHECK(early.elapsed().count() > 0);
  run_ok({"qemu-img", "check", "-q", disk.out()});
  run_ok({"qemu-img", "compare", "-q", disk.overlay(), disk.out()});
  CHECK_FALSE(work.requested());
}

TEST_CASE("an early copy keeps snapshots, which the overlay does not change", "[early]") {
  const Disk disk;
  run_ok({"qemu-img", "snapshot", "-c", "then", disk.path()});
  disk.write(disk.path(), "1M 256k");
  run_ok({"qemu-img", "convert", "-l", "then", "-O", "raw", disk.path(), disk.out() + ".then"});
  Cancel work;
  Updates updates;
  copy::CopyOptions how = disk.how();
  how.snapshots.emplace();
  EarlyCopy early(how, kEnd, updates, work);
  disk.write(disk.overlay(), "2M 1M");
  wait_for_a_while();
  const auto done = early.finish(open(disk.overlay()));
  REQUIRE_OK(done);
  CHECK(done->snapshots == 1);
  run_ok({"qemu-img", "check", "-q", disk.out()});
  run_ok({"qemu-img", "compare", "-q", disk.overlay(), disk.out()});
  run_ok({"qemu-img", "snapshot", "-a", "then", disk.out()});
  run_ok({"qemu-img", "compare", "-q", "-F", "raw", disk.out(), disk.out() + ".then"});
}

TEST_CASE("an early copy that is not finished leaves no file", "[early]") {
  const Disk disk;
  Cancel work;
  Updates updates;
  {
    const EarlyCopy early(disk.how(), kEnd, updates, work);
    wait_for_a_while();
  }
  CHECK(work.requested());
  CHECK_FALSE(disk.has_out());
  CHECK(updates.count == 0);
}

TEST_CASE("a failed early copy stops the other work, and its error is kept", "[early]") {
  const Disk disk;
  Cancel work;
  Updates updates;
  copy::CopyOptions how = disk.how();
  how.source += ".missing";
  EarlyCopy early(how, kEnd, updates, work);
  while (!work.requested()) std::this_thread::yield();
  std::optional<Error> failure;
  while (!(failure = early.failure())) std::this_thread::yield();
  CHECK_THAT(failure->message(), Catch::Contains("disk.missing"));
  CHECK_FALSE(disk.has_out());
}

TEST_CASE("an early copy stops with the work", "[early]") {
  const Disk disk;
  Cancel work;
  Updates updates;
  EarlyCopy early(disk.how(), kEnd, updates, work);
  work.request();
  std::optional<Error> failure;
  while (!(failure = early.failure())) std::this_thread::yield();
  CHECK(failure->kind() == Error::Kind::kCancelled);
  CHECK_FALSE(disk.has_out());
}

TEST_CASE("the appliance changes nothing before the first volume that it trims", "[early]") {
  const TempDirectory folder;
  const std::string disk = folder / "disk";
  support::write_file(disk, std::string());
  support::resize_file(disk, 240 * kMiB);
  run_ok({"sh", "-c",
          "printf 'label: gpt\nstart=1MiB,size=20MiB\nstart=21MiB,size=100MiB\n"
          "start=121MiB,size=20MiB\nstart=141MiB,size=20MiB\n' | sfdisk -q \"$1\"",
          "sh", disk});
  const auto put = [&](const char* make, unsigned mebibytes) {
    const std::string volume = folder / "volume";
    run_ok({"sh", "-c", make, "sh", volume});
    run_ok({"dd", "if=" + volume, "of=" + disk, "bs=1M", "conv=notrunc", "status=none",
            "seek=" + std::to_string(mebibytes)});
  };
  put("mke2fs -q -F -t ext4 \"$1\" 20M", 1);
  // The journal must be replayed, and the data is worth a boot.
  put("mke2fs -q -F -t ext4 -O ^metadata_csum \"$1\" 100M && "
      "head -c 80M /dev/urandom | dd of=\"$1\" bs=1M seek=20 conv=notrunc status=none && "
      "printf '\\106' | dd of=\"$1\" bs=1 seek=1120 conv=notrunc status=none",
      21);
  put("mke2fs -q -F -t ext4 \"$1\" 20M", 121);
  put("head -c 20M /dev/urandom >\"$1\"", 141);
  const auto until = [&](std::vector<std::string> ignored) {
    const auto source = open(disk);
    appliance::TrimOptions options;
    options.ignore = std::move(ignored);
    const auto plan =
        optimize::plan_free_space(*source, optimize::Trimming::kAuto, options, Cancel());
    REQUIRE_OK(plan);
    return plan->unchanged_until / kMiB;
  };
  CHECK(until({}) == 21);
  CHECK(until({"/dev/sda2"}) == 141);
  CHECK(until({"/dev/sda2", "/dev/sda4"}) == 240);
  CHECK(until({"/dev/sda9"}) == 0);
}

TEST_CASE("a change of the overlay before the rest is detected", "[early]") {
  for (const auto& [what, is_unchanged] :
       {std::pair("2M 64k", true), std::pair("2047k 1k", false), std::pair("0 512", false)}) {
    CAPTURE(what);
    const Disk disk;
    Cancel work;
    Updates updates;
    const EarlyCopy early(disk.how(), kEnd, updates, work);
    disk.write(disk.overlay(), what);
    const auto found = early.is_unchanged(*open(disk.overlay()));
    REQUIRE_OK(found);
    CHECK(*found == is_unchanged);
  }
}
