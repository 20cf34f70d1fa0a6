// Missing space for the result is reported before an appliance boots.
#include <filesystem>

#include "tests/catch.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using support::run_ok;
using support::TempDirectory;

namespace {

constexpr size_t kMiB = 1 << 20;

void write_noise(const std::string& path, size_t size) {
  support::Random random(31);
  std::vector<std::byte> bytes(size);
  random.fill(bytes);
  support::write_file(path, bytes);
}

// 256 MiB: the filesystem uses 24 MiB, and 40 MiB more hold deleted data.
std::string make_guest(const TempDirectory& folder) {
  const std::string raw = folder / "disk.raw";
  std::filesystem::create_directory(folder / "files");
  write_noise(folder / "files/kept", 24 * kMiB);
  run_ok({"mke2fs", "-q", "-t", "ext4", "-d", folder / "files", raw, "256M"});
  write_noise(folder / "noise", 40 * kMiB);
  run_ok({"dd", "if=" + folder / "noise", "of=" + raw, "bs=1M", "seek=200", "conv=notrunc",
          "status=none"});
  run_ok({"qemu-img", "convert", "-O", "qcow2", raw, folder / "disk"});
  std::filesystem::remove(raw);
  return folder / "disk";
}

bool has_namespaces() {
  if (support::run({"unshare", "-rm", "true"}).ok()) return true;
  WARN("skipped: no namespaces of one's own here");
  return false;
}

// Runs optimize with the result on a filesystem of `size` (for mount), and without an appliance.
support::Outcome optimize(const TempDirectory& folder, const std::string& size,
                          const std::string& options) {
  const std::string script = "mkdir -p \"$1/small\" && mount -t tmpfs -o size=" + size +
                             " none \"$1/small\" && LIBGUESTFS_PATH=/nowhere \"$VIRT_COMPACT\" "
                             "optimize --trim=appliance " +
                             options + " -o \"$1/small/out\" \"$1/disk\"";
  return support::run({"unshare", "-rm", "sh", "-c", script, "sh", folder.path()});
}

}  // namespace

TEST_CASE("a result without space is an error before an appliance boots", "[optimize]") {
  if (!has_namespaces()) return;
  const TempDirectory folder;
  make_guest(folder);
  const auto outcome = optimize(folder, "12m", "");
  INFO(outcome.describe());
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("there is not enough space for the result") &&
                              Contains("small has 12.0 MiB free") && Contains("--output"));
  CHECK_THAT(outcome.err, !Contains("appliance"));

  SECTION("a dry run reports it, too") {
    const auto dry = optimize(folder, "12m", "--dry-run");
    INFO(dry.describe());
    CHECK_THAT(dry.err,
               Contains("there is not enough space for the result") && Contains("appliance"));
  }
  SECTION("no error if the trim may free enough") {
    const auto perhaps = optimize(folder, "40m", "");
    INFO(perhaps.describe());
    CHECK_THAT(perhaps.err,
               Contains("fits only if trimming frees enough: without trimming, it takes") &&
                   Contains("appliance"));
  }
  SECTION("no error if the user drops more data") {
    const auto dropped = optimize(folder, "12m", "--drop pagefile");
    INFO(dropped.describe());
    CHECK_THAT(dropped.err, Contains("fits only if") && Contains("appliance"));
  }
  SECTION("no warning if the result fits") {
    const auto fits = optimize(folder, "100m", "");
    INFO(fits.describe());
    CHECK_THAT(fits.err, !Contains("fits") && !Contains("space") && Contains("appliance"));
  }
}

TEST_CASE("with an unknown guest, only the appliance finds the size", "[optimize]") {
  if (!has_namespaces()) return;
  const TempDirectory folder;
  write_noise(folder / "noise", 40 * kMiB);
  run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "noise", folder / "disk"});
  const auto outcome = optimize(folder, "12m", "");
  INFO(outcome.describe());
  CHECK_THAT(outcome.err, Contains("fits only if") && Contains("appliance"));
}
