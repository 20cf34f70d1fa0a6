// The plugin serves the same disk as qemu-nbd, for images of every kind.
#include <algorithm>
#include <stdexcept>

#include "copy/copier.h"
#include "qcow2/read/chain.h"
#include "tests/catch.h"
#include "tests/interop/corner_images.h"
#include "tests/interop/export_comparison.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/nbd_client.h"
#include "tests/interop/qemu.h"
#include "tests/support/command_line.h"
#include "tests/support/nbd_server.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

namespace vc::interop {

using support::NbdServer;
using support::Random;
using support::TempDirectory;

namespace {

// Returns the path of the plugin under test.
// Returns the bytes that the server does not report as zeros.
uint64_t data_bytes(const NbdServer& server) {
  const NbdClient client(server.socket(), "");
  uint64_t bytes = 0;
  for (const auto& it : client.block_status(0, client.size())) bytes += it.zero ? 0 : it.length;
  return bytes;
}

}  // namespace

TEST_CASE("preallocated clusters that are holes of the file are zeros for clients", "[plugin]") {
  const TempDirectory folder;
  const std::string image = folder / "image.qcow2";
  support::run_ok(
      {"qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "1G"});
  support::run_ok({"qemu-io", "-c", "write -q -P 1 512M 1M", image});
  CHECK(data_bytes(NbdServer::qemu_nbd({"-f", "qcow2", image})) <= 2 << 20);
  const uint64_t ours = data_bytes(NbdServer::nbdkit({"-r", tool_test::plugin(), "file=" + image}));
  CHECK(ours >= 1 << 20);
  CHECK(ours <= 2 << 20);
  CHECK(data_bytes(NbdServer::nbdkit({tool_test::plugin(), "file=" + image})) == ours);
}

TEST_CASE("the plugin serves random images as qemu-nbd does", "[plugin]") {
  const uint64_t count = support::iterations(16);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const MadeImage made = make_image(random, folder.path());
    INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n" << made.recipe);
    const auto chain = qcow2::Chain::open(made.path, {});
    REQUIRE(chain);

    std::vector<std::string> arguments{"-r", tool_test::plugin(), "file=" + made.path};
    if (random.chance(30)) arguments.push_back("cache-size=64K");
    // Without "file=", as users write it.
    if (random.chance(20)) arguments = {"-r", tool_test::plugin(), made.path};
    const NbdServer server = NbdServer::nbdkit(arguments);
    const auto names = NbdClient::list(server.socket());
    for (const MadeDisk& disk : made.disks) {
      const std::string name = export_name(disk);
      INFO("export: '" << name << "'");
      CHECK(std::find(names.begin(), names.end(), name) != names.end());
      const auto view = disk.snapshot.empty() ? Result<qcow2::Disk>(chain->disk())
                                              : chain->snapshot(disk.snapshot);
      REQUIRE(view);
      check_export(server, name, *view, disk.raw, made.huge, folder / "scratch", random);
      const NbdServer theirs = NbdServer::qemu_nbd({"-f", "qcow2", disk.image});
      CHECK(copy_complaint(theirs.uri(), disk.raw, folder / "scratch") == "");
    }
    CHECK(names.size() == made.disks.size());

    // Serves one snapshot with the parameter.
    const MadeDisk& last = made.disks.back();
    if (last.snapshot.empty()) continue;
    const NbdServer alone = NbdServer::nbdkit(
        {"-r", tool_test::plugin(), "file=" + made.path, "snapshot=" + last.snapshot});
    CHECK(copy_complaint(alone.uri(), last.raw, folder / "scratch") == "");
  }
}

TEST_CASE("the plugin serves corner cases", "[plugin]") {
  const TempDirectory folder;
  Random random(support::base_seed());
  for (const CornerImage& corner : make_corner_images(folder.path())) {
    INFO(corner.name);
    const std::string raw = corner.path + ".raw";
    convert_to_raw(corner.path, raw);
    const auto chain = qcow2::Chain::open(corner.path, {});
    REQUIRE(chain);
    const NbdServer server = NbdServer::nbdkit({"-r", tool_test::plugin(), "file=" + corner.path});
    check_export(server, "", chain->disk(), raw, false, folder / "scratch", random);
  }
}

TEST_CASE("the copier copies what the plugin serves", "[plugin]") {
  const uint64_t count = support::iterations(6);
  class Silent final : public Progress {
    void update(uint64_t /*done*/, uint64_t /*total*/) override {}
  } progress;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const MadeImage made = make_image(random, folder.path());
    INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n" << made.recipe);
    const NbdServer server = NbdServer::nbdkit({"-r", tool_test::plugin(), "file=" + made.path});
    const MadeDisk& disk = random.pick(made.disks);
    for (const bool compressed : {false, true}) {
      copy::CopyOptions options;
      options.source = server.uri(export_name(disk));
      options.destination = folder / (compressed ? "compressed" : "plain");
      options.nbd.request_size = uint64_t{4096} << random.below(8);
      if (compressed) options.compression.type = qcow2::CompressionType::kZstd;
      const Cancel cancel;
      const auto summary = copy::copy(options, progress, cancel);
      INFO((summary ? "" : summary.error().message()));
      REQUIRE(summary);
      CHECK(check_complaint(options.destination) == "");
      CHECK(compare_complaint(options.destination, "qcow2", disk.raw) == "");
    }
  }
}

}  // namespace vc::interop
