// Tests reads and block status over NBD.
#include <atomic>
#include <random>
#include <thread>

#include "tests/catch.h"
#include "tests/interop/nbd_client.h"
#include "tests/plugin/served_disk.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using Catch::Contains;
using interop::NbdClient;
using support::TempDirectory;

namespace {

// Makes a disk with 64 KiB each of: data, compressed data, zeros with and without an allocated
// cluster, and a hole.
std::string disk_of_all_kinds(const TempDirectory& folder) {
  const std::string image = folder / "kinds.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "512k"});
  test::qemu_io(image,
                {"write -q -P 1 0 64k", "write -q -c -P 2 64k 64k", "write -q -P 3 128k 64k",
                 "write -q -z 128k 64k", "write -q -z -u 192k 64k", "write -q -P 4 320k 128k"});
  return image;
}

struct Expected {
  uint64_t at;
  uint64_t length;
  bool hole;
  bool zero;
};

void check_status(const std::vector<NbdClient::Status>& got,
                  const std::vector<Expected>& expected) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i].at == expected[i].at);
    CHECK(got[i].length == expected[i].length);
    CHECK(got[i].hole == expected[i].hole);
    CHECK(got[i].zero == expected[i].zero);
  }
}

}  // namespace

TEST_CASE("block status distinguishes data, zeros and holes", "[plugin]") {
  const TempDirectory folder;
  const auto server = test::serve({disk_of_all_kinds(folder)});
  const NbdClient client(server.socket(), "");
  constexpr uint64_t k = 1024;
  check_status(client.block_status(0, 512 * k), {{0, 128 * k, false, false},
                                                 {128 * k, 64 * k, false, true},
                                                 {192 * k, 128 * k, true, true},
                                                 {320 * k, 128 * k, false, false},
                                                 {448 * k, 64 * k, true, true}});
  // Not more than requested, although the next range has the same kind.
  check_status(client.block_status(10 * k, 20 * k), {{10 * k, 20 * k, false, false}});
  check_status(client.block_status(100 * k, 50 * k, true),
               {{100 * k, 28 * k, false, false}, {128 * k, 22 * k, false, true}});
}

TEST_CASE("holes of terabytes are reported in several extents", "[plugin]") {
  const TempDirectory folder;
  const std::string image = folder / "large.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", image, "20T"});
  test::qemu_io(image, {"write -q -P 1 10T 1M", "write -q -P 2 20971519M 1M"});
  const auto server = test::serve({image});
  const NbdClient client(server.socket(), "");
  constexpr uint64_t tib = uint64_t{1} << 40;
  constexpr uint64_t gib = uint64_t{1} << 30;
  for (const uint64_t at : {uint64_t{0}, tib - 512, 10 * tib - 4 * gib, 10 * tib - 1}) {
    uint64_t covered = at;
    for (const auto& it : client.block_status(at, 4 * gib - 512)) {
      CHECK(it.at == covered);
      covered += it.length;
      if (it.zero) CHECK((it.at + it.length <= 10 * tib || it.at >= 10 * tib + (1 << 20)));
    }
    CHECK(covered == at + 4 * gib - 512);
  }
  CHECK(client.read(10 * tib, 1).front() == std::byte{1});
  CHECK(client.read(20 * tib - 1, 1).front() == std::byte{2});
}

TEST_CASE("the extents of a whole disk can be listed in any number of requests", "[plugin]") {
  const TempDirectory folder;
  // With clusters of 512 bytes, one answer does not cover all of them.
  const std::string image = folder / "small-clusters.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image, "4G"});
  test::qemu_io(image, {"write -q -P 1 1G 512", "write -q -P 2 4294966784 512"});
  const auto server = test::serve({image});
  const NbdClient client(server.socket(), "");
  constexpr uint64_t gib = uint64_t{1} << 30;
  uint64_t covered = 0;
  uint64_t data = 0;
  for (const auto& it : client.block_status(0, 4 * gib)) {
    CHECK(it.at == covered);
    covered += it.length;
    if (!it.zero) data += it.length;
  }
  CHECK(covered == 4 * gib);
  CHECK(data == 2 * 512);
}

TEST_CASE("many readers of one image get the right bytes", "[plugin]") {
  const TempDirectory folder;
  const std::string raw = folder / "disk.raw";
  // Text and random data: some clusters are compressible and some are not.
  support::run_ok(
      {"bash", "-c",
       "{ seq 200000; head -c 700k /dev/urandom; seq 300000; } | head -c 3M >'" + raw + "'"});
  const std::string base = folder / "base.qcow2";
  const std::string top = folder / "top.qcow2";
  test::qemu_img({"convert", "-O", "qcow2", "-c", "-o", "cluster_size=4k", raw, base});
  test::qemu_img({"create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top});
  const auto server = test::serve({top, "cache-size=64k"});

  const support::RawFile truth(raw);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 16; ++t)
    threads.emplace_back([&, t] {
      try {
        const NbdClient client(server.socket(), "");
        std::mt19937 random(t);
        for (int i = 0; i < 100; ++i) {
          const uint64_t at = random() % ((3 << 20) - 70000);
          const size_t length = 1 + random() % 70000;
          if (client.read(at, length) != truth.read(at, length)) ++wrong;
        }
      } catch (const std::exception&) {
        ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("damage met while reading is an error for that request only", "[plugin]") {
  const TempDirectory folder;
  const std::string image = folder / "cut.qcow2";
  test::qemu_img({"create", "-q", "-f", "qcow2", image, "1M"});
  test::qemu_io(image, {"write -q -P 1 0 64k", "write -q -P 2 512k 64k"});
  // The second cluster is the last one of the file.
  support::run_ok({"truncate", "-s", "-64K", image});
  const auto server = test::serve({image});
  const NbdClient client(server.socket(), "");
  CHECK_THROWS(client.read(512 << 10, 4096));
  CHECK_THAT(server.log(), Contains("the image is truncated"));
  CHECK_THROWS(client.cache(0, 1 << 20));
  client.cache(0, 512 << 10);
  CHECK(client.read(0, 1).front() == std::byte{1});
}

TEST_CASE("debug flags log the result of requests", "[plugin]") {
  const TempDirectory folder;
  const auto server =
      test::serve({disk_of_all_kinds(folder), "-v", "-D", "qcow2.read=1", "-D", "qcow2.extents=1"});
  const NbdClient client(server.socket(), "");
  client.read(64 << 10, 10);
  client.block_status(0, 4096);
  CHECK_THAT(server.log(), Contains("qcow2: read 0x10000+0xa: compressed, depth 0"));
  CHECK_THAT(server.log(), Contains("qcow2: extent 0+0x1000: type 0"));
}
