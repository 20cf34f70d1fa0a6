// The plugin serves the disk that qemu-nbd serves, of images of every kind.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>

#include "copy/copier.h"
#include "qcow2/chain.h"
#include "tests/interop/corner_images.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/nbd_client.h"
#include "tests/interop/qemu.h"
#include "tests/support/nbd_server.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace interop {

using support::NbdServer;
using support::Random;
using support::RawFile;
using support::TempDirectory;

namespace {

// Path of the plugin under test.
std::string plugin() {
  const char* path = std::getenv("VIRT_COMPACT_PLUGIN");
  if (!path) throw std::runtime_error("VIRT_COMPACT_PLUGIN does not say where the plugin is");
  return path;
}

std::string export_name(const MadeDisk& disk) {
  return disk.snapshot.empty() ? "" : "snapshot:" + disk.snapshot;
}

// Where nbdcopy's copy of the disk at `uri` differs from `raw`; empty: nowhere.
std::string copy_complaint(const std::string& uri, const std::string& raw,
                           const std::string& scratch) {
  support::run_ok({"nbdcopy", uri, scratch});
  const auto differ = support::first_difference(scratch, raw);
  std::filesystem::remove(scratch);
  return differ ? fmt::format("nbdcopy of {} differs from {} at {}", uri, raw, *differ) : "";
}

// What is wrong with extents that should cover [begin, end).
std::string status_complaint(const std::vector<NbdClient::Status>& extents, uint64_t begin,
                             uint64_t end, const RawFile& truth) {
  uint64_t at = begin;
  for (const NbdClient::Status& it : extents) {
    if (it.at != at || it.length == 0) return fmt::format("block status has a gap at {}", at);
    at += it.length;
    if (!it.zero) continue;
    if (const auto found = truth.first_nonzero(it.at, it.length))
      return fmt::format("[{}, +{}) is said to be zero, and is not at {}", it.at, it.length,
                         *found);
  }
  return at == end ? "" : fmt::format("block status ends at {}, not at {}", at, end);
}

// That the server tells, to the byte, what the engine's map tells.
std::string same_status_complaint(const std::vector<NbdClient::Status>& extents,
                                  const std::vector<qcow2::Extent>& map) {
  auto it = map.begin();
  for (const NbdClient::Status& status : extents) {
    for (; it != map.end() && it->guest.value() < status.at + status.length; ++it) {
      const bool hole = it->reads_as_zero() && !it->preallocated;
      if (it->reads_as_zero() != status.zero || hole != status.hole)
        return fmt::format("[{}, +{}) hole {} zero {}, but the map has a kind {} from {} on",
                           status.at, status.length, status.hole, status.zero,
                           static_cast<int>(it->kind), it->guest.value());
      if (it->end().value() > status.at + status.length) break;
    }
  }
  return {};
}

void check_export(const NbdServer& server, const std::string& name, const qcow2::Disk& disk,
                  const std::string& raw, bool huge, const std::string& scratch, Random& random) {
  const RawFile truth(raw);
  const NbdClient client(server.socket(), name);
  REQUIRE(client.size() == truth.size());
  CHECK(client.read_only());
  CHECK(client.can_multi_conn());

  const auto status = client.block_status(0, truth.size());
  CHECK(status_complaint(status, 0, truth.size(), truth) == "");
  std::vector<qcow2::Extent> map;
  REQUIRE(disk.map(qcow2::GuestOffset(0), disk.size(), map));
  CHECK(same_status_complaint(status, map) == "");

  for (unsigned i = 0; i < 8; ++i) {
    const NbdClient::Status& near = random.pick(status);
    const uint64_t at = near.at + random.below(near.length);
    uint64_t length = std::min(random.between(1, 200'000), truth.size() - at);
    CHECK((client.read(at, length) == truth.read(at, length)));
    length = std::min(random.between(1, 1 << 20), truth.size() - at);
    const auto part = client.block_status(at, length, random.chance(50));
    CHECK(status_complaint(part, at, at + length, truth) == "");
  }
  CHECK(copy_complaint(server.uri(name), raw, scratch) == "");
  // qemu-img, too, reads it over NBD.  It asks for the status of every hole anew.
  if (!huge) CHECK(compare_complaint(server.uri(name), "raw", raw) == "");
}

}  // namespace

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

    std::vector<std::string> arguments{plugin(), "file=" + made.path};
    if (random.chance(30)) arguments.push_back("cache-size=64K");
    // A name that says itself what it is, as users write it.
    if (random.chance(20)) arguments = {plugin(), made.path};
    const NbdServer server = NbdServer::nbdkit(arguments);
    const auto names = NbdClient::list(server.socket());
    for (const MadeDisk& disk : made.disks) {
      const std::string name = export_name(disk);
      INFO("export: '" << name << "'");
      CHECK(std::find(names.begin(), names.end(), name) != names.end());
      const auto view = disk.snapshot.empty() ? qcow2::Result<qcow2::Disk>(chain->disk())
                                              : chain->snapshot(disk.snapshot);
      REQUIRE(view);
      check_export(server, name, *view, disk.raw, made.huge, folder / "scratch", random);
      const NbdServer theirs = NbdServer::qemu_nbd({"-f", "qcow2", disk.image});
      CHECK(copy_complaint(theirs.uri(), disk.raw, folder / "scratch") == "");
    }
    CHECK(names.size() == made.disks.size());

    // One snapshot alone, by the parameter.
    const MadeDisk& last = made.disks.back();
    if (last.snapshot.empty()) continue;
    const NbdServer alone =
        NbdServer::nbdkit({plugin(), "file=" + made.path, "snapshot=" + last.snapshot});
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
    const NbdServer server = NbdServer::nbdkit({plugin(), "file=" + corner.path});
    check_export(server, "", chain->disk(), raw, false, folder / "scratch", random);
  }
}

TEST_CASE("the copier copies what the plugin serves", "[plugin]") {
  const uint64_t count = support::iterations(6);
  class Silent final : public copy::Progress {
    void update(uint64_t /*done*/, uint64_t /*total*/) override {}
  } progress;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const TempDirectory folder;
    const MadeImage made = make_image(random, folder.path());
    INFO("VIRT_COMPACT_SEED=" << seed << " VIRT_COMPACT_ITERATIONS=1\n" << made.recipe);
    const NbdServer server = NbdServer::nbdkit({plugin(), "file=" + made.path});
    const MadeDisk& disk = random.pick(made.disks);
    for (const bool compressed : {false, true}) {
      copy::CopyOptions options;
      options.source = server.uri(export_name(disk));
      options.destination = folder / (compressed ? "compressed" : "plain");
      options.request_size = uint64_t{4096} << random.below(8);
      if (compressed) options.compression = qcow2::CompressionType::kZstd;
      const copy::Cancel cancel;
      const auto summary = copy::copy(options, progress, cancel);
      INFO((summary ? "" : summary.error().message()));
      REQUIRE(summary);
      CHECK(check_complaint(options.destination) == "");
      CHECK(compare_complaint(options.destination, "qcow2", disk.raw) == "");
    }
  }
}

}  // namespace interop
