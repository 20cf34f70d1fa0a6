// Runs the filters on top of our own plugin, and shows their benefit.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/filters/filtered_server.h"
#include "tests/filters/writing_client.h"
#include "tests/support/command_line.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

using namespace vc;

using support::Random;
using support::TempDirectory;
using test::FilteredServer;
using test::WritingClient;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSize = 32 * kMiB;

std::string make_image(const TempDirectory& folder, const std::string& cluster_size) {
  const std::string image = folder / (cluster_size + ".qcow2");
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=" + cluster_size,
                   image, std::to_string(kSize)});
  return image;
}

// Returns the number of guest data clusters, according to qemu-img, which must find no errors.
uint64_t clusters_of(const std::string& image) {
  const auto outcome = support::run_ok({"qemu-img", "check", "--output=json", image});
  return nlohmann::json::parse(outcome.out).at("allocated-clusters");
}

// Fills a disk, trims all but a few blocks as a filesystem would, and returns the clusters that are
// left.
uint64_t trim_most(const std::string& filter, const std::vector<std::string>& parameters) {
  const TempDirectory folder;
  const std::string image = make_image(folder, "1M");
  {
    std::vector<std::string> words{tool_test::plugin(), image};
    words.insert(words.end(), parameters.begin(), parameters.end());
    FilteredServer server(filter, words);
    WritingClient client(server.socket());
    const std::vector<std::byte> full(kMiB, std::byte{1});
    for (uint64_t at = 0; at < kSize; at += kMiB) client.write(at, full);
    Random random(1);
    for (uint64_t at = 0; at < kSize;) {
      const uint64_t length = std::min(kSize - at, 4096 * random.between(1, 120));
      // Keeps a file in the first and in the last part of the disk.
      if (at == 0 || at + length == kSize)
        client.flush();
      else
        client.trim(at, length);
      at += length;
    }
    client.flush();
  }
  return clusters_of(image);
}

}  // namespace

TEST_CASE("small trims free large clusters when they are joined", "[filters-plugin]") {
  // The first and the last cluster stay.
  CHECK(trim_most("coalesce-discard", {}) == 2);
  // No trim is as long as a cluster.
  CHECK(trim_most("", {}) == kSize / kMiB);
}

TEST_CASE("zeros in writes take no clusters", "[filters-plugin]") {
  const uint64_t seed = support::base_seed();
  const TempDirectory folder;
  Random random(seed);
  std::vector<std::byte> disk(kSize);
  // Of eight clusters of 64 KiB, one has a byte of data.
  constexpr uint64_t kCluster = 64 << 10;
  uint64_t filled = 0;
  for (uint64_t at = 0; at < kSize; at += kCluster)
    if (random.chance(12)) {
      disk[at + random.below(kCluster)] = std::byte{1};
      ++filled;
    }
  const auto write = [&](const std::string& filter, const std::string& name) {
    const std::string image = folder / name;
    support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image, std::to_string(kSize)});
    FilteredServer server(filter, {tool_test::plugin(), image});
    WritingClient client(server.socket());
    for (uint64_t at = 0; at < kSize;) {
      const uint64_t length = std::min(kSize - at, random.between(kCluster / 4, 3 * kMiB));
      client.write(at, std::span(disk).subspan(at, length));
      at += length;
    }
    client.flush();
    return image;
  };
  const std::string with = write("detect-zeroes", "with.qcow2");
  const std::string without = write("", "without.qcow2");
  CHECK(clusters_of(with) == filled);
  CHECK(clusters_of(without) == kSize / kCluster);
  support::run_ok({"qemu-img", "compare", with, without});
}
