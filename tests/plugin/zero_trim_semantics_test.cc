// Tests the effects of zeroing and trimming on the image, and the guarantees of a flush.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "tests/catch.h"
#include "tests/filters/writing_client.h"
#include "tests/interop/image_editor.h"
#include "tests/interop/nbd_client.h"
#include "tests/interop/qemu.h"
#include "tests/plugin/served_disk.h"
#include "tests/plugin/writing_server.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using interop::MapEntry;
using interop::NbdClient;
using support::Random;
using support::TempDirectory;
using test::WritingClient;
using test::WritingServer;

namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1 << 20;

// Makes a disk of 8 MiB full of ones.
std::string full_image(const TempDirectory& folder, const std::string& options) {
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", "-o", options, image, "8M"});
  test::qemu_io(image, {"write -q -P 1 0 8M"});
  return image;
}

// Returns the mapped bytes in [begin, end) for which `says` is true.
template <typename Says>
uint64_t bytes_that(const std::string& image, uint64_t begin, uint64_t end, Says says) {
  uint64_t bytes = 0;
  for (const MapEntry& it : interop::qemu_map(image)) {
    const uint64_t from = std::max(it.start, begin);
    const uint64_t to = std::min(it.start + it.length, end);
    if (from < to && says(it)) bytes += to - from;
  }
  return bytes;
}

uint64_t kept_zeros(const std::string& image, uint64_t begin, uint64_t end) {
  return bytes_that(image, begin, end, [](const MapEntry& it) { return it.zero && it.offset; });
}

uint64_t holes(const std::string& image, uint64_t begin, uint64_t end) {
  return bytes_that(image, begin, end, [](const MapEntry& it) { return it.zero && !it.offset; });
}

bool is_all(const Bytes& bytes, unsigned value) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [&](std::byte it) { return it == static_cast<std::byte>(value); });
}

}  // namespace

TEST_CASE("only NO_HOLE keeps zeroed clusters allocated", "[write-semantics]") {
  const TempDirectory folder;
  const std::string image = full_image(folder, "cluster_size=64k");
  WritingServer server({image});
  {
    WritingClient client(server.socket());
    client.zero(0, kMiB, LIBNBD_CMD_FLAG_NO_HOLE);
    client.zero(kMiB, kMiB);
    // Half a cluster at both ends.
    client.zero(2 * kMiB + 32 * kKiB, kMiB);
    CHECK(is_all(client.read(0, 2 * kMiB), 0));
    CHECK(is_all(client.read(2 * kMiB, 32 * kKiB), 1));
    CHECK(is_all(client.read(2 * kMiB + 32 * kKiB, kMiB), 0));
    CHECK(is_all(client.read(3 * kMiB + 32 * kKiB, 32 * kKiB), 1));
    // Zeroing an unallocated range allocates nothing.
    client.zero(kMiB, 64 * kKiB, LIBNBD_CMD_FLAG_NO_HOLE);
  }
  server.stop();
  CHECK(interop::check_complaint(image) == "");
  CHECK(kept_zeros(image, 0, kMiB) == kMiB);
  CHECK(holes(image, kMiB, 2 * kMiB) == kMiB);
  CHECK(holes(image, 2 * kMiB, 4 * kMiB) == kMiB - 64 * kKiB);
}

TEST_CASE("a fast zero request is refused when it would be slow, and only then",
          "[write-semantics]") {
  const uint64_t images = support::iterations(4);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const bool extended = random.chance(50);
    CAPTURE(seed, extended);
    const TempDirectory folder;
    const std::string image =
        full_image(folder, extended ? "cluster_size=64k,extended_l2=on" : "cluster_size=64k");
    const uint64_t unit = extended ? 2 * kKiB : 64 * kKiB;
    WritingServer server({image});
    {
      WritingClient client(server.socket());
      Bytes model(8 * kMiB, std::byte{1});
      const auto zero_in_model = [&](uint64_t begin, uint64_t end) {
        return std::all_of(model.begin() + static_cast<ptrdiff_t>(begin),
                           model.begin() + static_cast<ptrdiff_t>(end),
                           [](std::byte it) { return it == std::byte{0}; });
      };
      unsigned refused = 0;
      for (int request = 0; request < 300; ++request) {
        uint64_t begin = random.below(model.size());
        uint64_t end = random.between(begin + 1, std::min(begin + 300 * kKiB, model.size()));
        // Data is only written in whole units here, so the map shows a zeroed part of a unit as
        // zeros.
        if (random.chance(50)) begin = begin / unit * unit;
        if (random.chance(50)) end = (end + unit - 1) / unit * unit;
        const uint64_t inner = (begin + unit - 1) / unit * unit;
        const uint64_t outer = end / unit * unit;
        const auto unit_is_zero = [&](uint64_t at) {
          return zero_in_model(at / unit * unit, at / unit * unit + unit);
        };
        const bool slow =
            (inner != begin && !unit_is_zero(begin)) || (outer != end && !unit_is_zero(end));
        const uint32_t flags =
            LIBNBD_CMD_FLAG_FAST_ZERO | (random.chance(50) ? LIBNBD_CMD_FLAG_NO_HOLE : uint32_t{0});
        CAPTURE(begin, end, flags);
        if (slow) {
          ++refused;
          REQUIRE_THROWS_WITH(client.zero(begin, end - begin, flags),
                              Contains("Operation not supported"));
          continue;
        }
        REQUIRE_NOTHROW(client.zero(begin, end - begin, flags));
        std::fill(model.begin() + static_cast<ptrdiff_t>(begin),
                  model.begin() + static_cast<ptrdiff_t>(end), std::byte{0});
        if (random.chance(50)) {
          const uint64_t at = random.below(model.size() / unit) * unit;
          const Bytes data(unit, std::byte{2});
          client.write(at, data);
          std::copy(data.begin(), data.end(), model.begin() + static_cast<ptrdiff_t>(at));
        }
      }
      CHECK(refused > 10);
      CHECK((client.read(0, model.size()) == model));
    }
    server.stop();
    CHECK(interop::check_complaint(image) == "");
  }
}

TEST_CASE("a version 2 image has no fast zeros for data", "[write-semantics]") {
  const TempDirectory folder;
  const std::string image = full_image(folder, "compat=0.10");
  WritingServer server({image});
  WritingClient client(server.socket());
  CHECK_THROWS_WITH(client.zero(0, 64 * kKiB, LIBNBD_CMD_FLAG_FAST_ZERO),
                    Contains("Operation not supported"));
  CHECK(is_all(client.read(0, 64 * kKiB), 1));
  client.zero(0, 64 * kKiB);
  CHECK(is_all(client.read(0, 64 * kKiB), 0));
}

TEST_CASE("discard=ignore keeps every cluster", "[write-semantics]") {
  const TempDirectory folder;
  const std::string image = full_image(folder, "cluster_size=64k");
  const auto length = std::filesystem::file_size(image);
  WritingServer server({image, "discard=ignore"});
  {
    WritingClient client(server.socket());
    client.trim(0, 4 * kMiB);
    client.zero(4 * kMiB, 4 * kMiB);
    CHECK(is_all(client.read(0, 4 * kMiB), 1));
    CHECK(is_all(client.read(4 * kMiB, 4 * kMiB), 0));
  }
  server.stop();
  CHECK(interop::check_complaint(image) == "");
  CHECK(holes(image, 0, 8 * kMiB) == 0);
  CHECK(kept_zeros(image, 4 * kMiB, 8 * kMiB) == 4 * kMiB);
  CHECK(std::filesystem::file_size(image) == length);
}

TEST_CASE("trims of any size free the clusters that they cover, and the file shrinks",
          "[write-semantics]") {
  const uint64_t images = support::iterations(6);
  for (uint64_t i = 0; i < images; ++i) {
    const uint64_t seed = support::base_seed() + i;
    Random random(seed);
    const uint64_t cluster = uint64_t{1} << random.between(12, 18);
    CAPTURE(seed, cluster);
    const TempDirectory folder;
    const std::string image = full_image(folder, fmt::format("cluster_size={}", cluster));
    const auto length = std::filesystem::file_size(image);
    WritingServer server({image});
    std::vector<NbdClient::Status> status;
    std::vector<char> trimmed(8 * kMiB);  // by byte
    uint64_t freed = 0;
    {
      WritingClient client(server.socket());
      std::vector<char> free(trimmed.size() / cluster);
      for (int request = 0; request < 20; ++request) {
        const uint64_t begin = random.below(trimmed.size());
        const uint64_t end = random.between(begin + 1, std::min(begin + kMiB, trimmed.size()));
        client.trim(begin, end - begin);
        std::fill(trimmed.begin() + static_cast<ptrdiff_t>(begin),
                  trimmed.begin() + static_cast<ptrdiff_t>(end), char{1});
        for (uint64_t at = (begin + cluster - 1) / cluster; (at + 1) * cluster <= end; ++at)
          free[at] = 1;
      }
      freed = static_cast<uint64_t>(std::count(free.begin(), free.end(), char{1})) * cluster;
      const Bytes found = client.read(0, trimmed.size());
      uint64_t lost = 0;
      uint64_t kept = 0;
      for (uint64_t at = 0; at < found.size(); ++at) {
        lost += trimmed[at] == 0 && found[at] != std::byte{1};
        kept += free[at / cluster] != 0 && found[at] != std::byte{0};
      }
      CHECK(lost == 0);
      CHECK(kept == 0);
      status = NbdClient(server.socket(), "").block_status(0, trimmed.size());
    }
    server.stop();
    CHECK(interop::check_complaint(image) == "");
    CHECK(holes(image, 0, trimmed.size()) == freed);
    // Live data, some tables, and data that was not worth moving.
    CHECK(std::filesystem::file_size(image) <= length - freed + length / 16 + cluster);
    // The map is the same after everything was written to the file.
    WritingServer again({image});
    const auto now = NbdClient(again.socket(), "").block_status(0, trimmed.size());
    REQUIRE(now.size() == status.size());
    uint64_t zero = 0;
    for (size_t n = 0; n < now.size(); ++n) {
      CHECK((now[n].at == status[n].at && now[n].length == status[n].length &&
             now[n].hole == status[n].hole && now[n].zero == status[n].zero));
      if (now[n].zero) zero += now[n].length;
    }
    CHECK(zero == freed);
  }
}

TEST_CASE("a flush on one connection covers all connections", "[write-semantics]") {
  const TempDirectory folder;
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "8M"});
  for (unsigned round = 1; round <= 5; ++round) {
    WritingServer server({image});
    REQUIRE(NbdClient(server.socket(), "").can_multi_conn());
    WritingClient writes(server.socket());
    WritingClient flushes(server.socket());
    writes.write(round * 100 * kKiB, Bytes(200 * kKiB, static_cast<std::byte>(round)));
    // Each client immediately sees the other client's writes.
    CHECK(is_all(flushes.read(round * 100 * kKiB, 200 * kKiB), round));
    flushes.flush();
    server.kill();
    WritingServer again({image}, {"-r"});
    CHECK(is_all(NbdClient(again.socket(), "").read(round * 100 * kKiB, 200 * kKiB), round));
  }
}

TEST_CASE("a write with FUA survives without a flush", "[write-semantics]") {
  const TempDirectory folder;
  const std::string image = folder / "disk.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "8M"});
  {
    WritingServer server({image});
    WritingClient client(server.socket());
    client.write(0, Bytes(200 * kKiB, std::byte{1}), LIBNBD_CMD_FLAG_FUA);
    client.zero(100 * kKiB, 50 * kKiB, LIBNBD_CMD_FLAG_FUA);
    server.kill();
  }
  WritingServer server({image}, {"-r"});
  const NbdClient client(server.socket(), "");
  CHECK(is_all(client.read(0, 100 * kKiB), 1));
  CHECK(is_all(client.read(100 * kKiB, 50 * kKiB), 0));
  CHECK(is_all(client.read(150 * kKiB, 50 * kKiB), 1));
}

TEST_CASE("a new image has the requested size", "[write-semantics]") {
  const TempDirectory folder;
  const std::string image = folder / "disk.qcow2";
  for (const uint64_t size : {uint64_t{512}, 3 * kMiB + 512, uint64_t{1} << 40}) {
    for (const uint64_t cluster : {512, 4096, 65536, 2 << 20}) {
      // A larger size would exceed the L1 table's limit.
      if (size > kMiB * kMiB / 8 && cluster < 4096) continue;
      CAPTURE(size, cluster);
      std::filesystem::remove(image);
      WritingServer server({image, "create=true", fmt::format("size={}", size),
                            fmt::format("cluster-size={}", cluster)});
      {
        WritingClient client(server.socket());
        CHECK(NbdClient(server.socket(), "").size() == size);
        CHECK(is_all(client.read(0, 512), 0));
        client.write(size - 512, Bytes(512, std::byte{7}));
      }
      server.stop();
      CHECK(interop::check_complaint(image) == "");
      CHECK(interop::virtual_size(image) == size);
      const auto info = support::run_ok({"qemu-img", "info", "--output=json", image});
      CHECK_THAT(info.out, Contains(fmt::format("\"cluster-size\": {}", cluster)));
    }
  }
}

TEST_CASE("a new image replaces no file, and exists only when it is complete",
          "[write-semantics]") {
  if (!test::server_ends()) {
    WARN("skipped: nbdkit does not end with a sanitizer's library in it");
    return;
  }
  const TempDirectory folder;
  const std::string image = folder / "disk.qcow2";
  const auto refused = [&](const std::vector<std::string>& parameters, const std::string& why) {
    const auto outcome = test::try_to_serve(parameters);
    INFO(outcome.describe());
    CHECK_FALSE(outcome.ok());
    CHECK_THAT(outcome.err, Contains(why));
  };
  refused({image, "create=true"}, "size=");
  refused({image, "create=true", "size=1M", "cluster-size=3000"}, "power of two");
  refused({image, "create=true", "size=1M", "cluster-size=4M"}, "power of two");
  refused({image, "create=true", "size=8191P"}, "disk.qcow2");
  refused({image, "create=true", "size=1M", "snapshot=one"}, "snapshot");
  refused({image, "size=1M"}, "create=true");
  CHECK(support::list_directory(folder.path()).empty());
  refused({folder / "nowhere/disk.qcow2", "create=true", "size=1M"}, "nowhere");

  support::write_file(image, std::string("precious"));
  refused({image, "create=true", "size=1M"}, "exists");
  CHECK(support::read_file(image).size() == 8);
  CHECK(support::list_directory(folder.path()) == std::vector<std::string>{"disk.qcow2"});
}

// Another program freed these clusters and left their data.
TEST_CASE("a trim also deallocates clusters that were free before", "[write-semantics]") {
  const TempDirectory folder;
  const std::string image = full_image(folder, "cluster_size=64k");
  interop::ImageEditor editor(image);
  for (uint64_t at = 0; at < 4 * kMiB; at += 64 * kKiB) {
    const uint64_t entry = editor.l2_entry_at(at);
    const uint64_t cluster = (editor.get64(entry) & 0x00fffffffffffe00) / (64 * kKiB);
    editor.put64(entry, 1);
    const uint64_t counts = editor.get64(editor.get64(interop::ImageEditor::kRefcountTableOffset));
    editor.put(counts + 2 * cluster, std::string(2, '\0'));
  }
  editor.save();
  const auto blocks = [&] {
    struct stat status {};
    REQUIRE(::stat(image.c_str(), &status) == 0);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  };
  const uint64_t before = blocks();
  const bool trims = GENERATE(true, false);
  CAPTURE(trims);
  WritingServer server({image});
  {
    WritingClient client(server.socket());
    if (trims) client.trim(0, 8 * kKiB);
    client.flush();
  }
  server.stop();
  CHECK(interop::check_complaint(image) == "");
  CHECK((before - blocks() >= 4 * kMiB) == trims);
}

TEST_CASE("with salvage=true, lost data reads as zeros", "[write-semantics]") {
  const TempDirectory folder;
  const std::string image = full_image(folder, "cluster_size=64k");
  interop::ImageEditor editor(image);
  editor.put64(editor.l2_entry_at(kMiB), 0x8000000070000000);
  editor.save();
  WritingServer server({image, "salvage=true"});
  {
    WritingClient client(server.socket());
    CHECK(is_all(client.read(0, kMiB), 1));
    CHECK(is_all(client.read(kMiB, 64 * kKiB), 0));
    CHECK(is_all(client.read(kMiB + 64 * kKiB, kMiB), 1));
    CHECK_THROWS(client.write(0, Bytes(512)));
  }
  server.stop();
  CHECK_THAT(server.log(), Contains("lost: guest offset 0x100000, 65536 bytes: lies past the end"));
}
