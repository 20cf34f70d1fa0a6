// virt-compact compact --defragment makes a file as short as a fresh copy.
#include <algorithm>
#include <filesystem>

#include "tests/catch_text.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"
#include "tests/tool/commands/compact/compact_run.h"

using namespace vc;

namespace {

using support::Random;
using support::run_ok;
using tool_test::run_tool;

constexpr uint64_t kDisk = 48 << 20;
constexpr uint64_t kSector = 512;

void write_randomly(const std::string& disk, Random& random, unsigned writes) {
  std::vector<std::string> command{"qemu-io", "-t", "unsafe", "-f", "qcow2", "-d", "unmap"};
  for (unsigned i = 0; i < writes; ++i) {
    const uint64_t at = random.below(kDisk / kSector) * kSector;
    const uint64_t length = std::min<uint64_t>(random.between(1, 3000) * kSector, kDisk - at);
    const uint64_t value = random.chance(30) ? 0 : random.between(1, 255);
    const std::string word =
        random.chance(30) ? "discard -q " : "write -q -P " + std::to_string(value) + " ";
    command.insert(command.end(), {"-c", word + std::to_string(at) + " " + std::to_string(length)});
  }
  command.push_back(disk);
  run_ok(command);
}

// An image with snapshots that were made and deleted. It stores zeros as data, which a copy drops.
std::string make_disk(const support::TempDirectory& folder, Random& random, uint64_t cluster) {
  const std::string disk = folder / "disk";
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
          "cluster_size=" + std::to_string(cluster), disk, std::to_string(kDisk)});
  const uint64_t snapshots = random.below(4);
  for (uint64_t i = 0; i <= snapshots; ++i) {
    write_randomly(disk, random, static_cast<unsigned>(random.between(10, 60)));
    if (i < snapshots) run_ok({"qemu-img", "snapshot", "-c", "s" + std::to_string(i), disk});
  }
  if (snapshots > 1) run_ok({"qemu-img", "snapshot", "-d", "s0", disk});
  return disk;
}

}  // namespace

TEST_CASE("compact --defragment makes random images as short as a fresh copy", "[compact]") {
  const uint64_t images = support::iterations(6);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const support::TempDirectory folder;
    const uint64_t cluster = uint64_t{4096} << random.below(5);
    const std::string disk = make_disk(folder, random, cluster);
    CAPTURE(seed);
    REQUIRE(run_tool({"copy", "-q", "--with-snapshots", "--cluster-size=" + std::to_string(cluster),
                      disk, folder / "fresh"})
                .ok());
    const auto predicted = run_tool({"compact", "--dry-run", "--json", "--defragment", disk});
    REQUIRE(run_tool({"compact", "-q", "--shrink", "--defragment", disk}).ok());
    const auto fresh = static_cast<double>(std::filesystem::file_size(folder / "fresh"));
    const auto length = static_cast<double>(std::filesystem::file_size(disk));
    CAPTURE(fresh, length);
    CHECK(length <= 1.01 * fresh);
    // A refcount block may become needless on the way, which the prediction does not know.
    const auto expected = compact_test::summary(predicted)["after"]["length"].get<double>();
    CHECK(expected >= length);
    CHECK(expected <= 1.01 * length);
    run_ok({"qemu-img", "check", "-q", disk});
    run_ok({"qemu-img", "compare", "-q", disk, folder / "fresh"});
  }
}
