#include "tests/interop/export_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "qcow2/read/file_holes.h"
#include "tests/catch.h"
#include "tests/interop/nbd_client.h"
#include "tests/interop/qemu.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::interop {

using support::NbdServer;
using support::Random;
using support::RawFile;

namespace {

// Returns what is wrong with extents that should cover [begin, end).
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

// Checks that the server reports exactly the engine's map.
std::string same_status_complaint(const std::vector<NbdClient::Status>& extents,
                                  const std::vector<qcow2::Extent>& map) {
  auto it = map.begin();
  for (const NbdClient::Status& status : extents) {
    for (; it != map.end() && it->guest.value() < status.at + status.length; ++it) {
      const bool hole = it->kind == qcow2::ExtentKind::kUnallocated ||
                        (it->kind == qcow2::ExtentKind::kZero && !it->preallocated);
      if (it->reads_as_zero() != status.zero || hole != status.hole)
        return fmt::format("[{}, +{}) hole {} zero {}, but the map has a kind {} from {} on",
                           status.at, status.length, status.hole, status.zero,
                           static_cast<int>(it->kind), it->guest.value());
      if (it->end().value() > status.at + status.length) break;
    }
  }
  return {};
}

}  // namespace

std::string export_name(const MadeDisk& disk) {
  return disk.snapshot.empty() ? "" : "snapshot:" + disk.snapshot;
}

std::string copy_complaint(const std::string& uri, const std::string& raw,
                           const std::string& scratch) {
  support::run_ok({"nbdcopy", uri, scratch});
  const auto differ = support::first_difference(scratch, raw);
  std::filesystem::remove(scratch);
  return differ ? fmt::format("nbdcopy of {} differs from {} at {}", uri, raw, *differ) : "";
}

void check_export(const NbdServer& server, const std::string& name, const qcow2::Disk& disk,
                  const std::string& raw, bool huge, const std::string& scratch, Random& random,
                  bool knows_holes) {
  const RawFile truth(raw);
  const NbdClient client(server.socket(), name);
  REQUIRE(client.size() == truth.size());
  CHECK(client.read_only());
  CHECK(client.can_multi_conn());

  const auto status = client.block_status(0, truth.size());
  CHECK(status_complaint(status, 0, truth.size(), truth) == "");
  std::vector<qcow2::Extent> map;
  REQUIRE(disk.map(GuestOffset(0), disk.size(), map));
  if (knows_holes) REQUIRE(qcow2::FileHoles().split(disk, map, 0, SIZE_MAX));
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
  // qemu-img also reads it over NBD.  It requests the status of every hole again.
  if (!huge) CHECK(compare_complaint(server.uri(name), "raw", raw) == "");
}

}  // namespace vc::interop
