#include "qcow2/check/fragmentation.h"

#include <vector>

#include "tests/catch_text.h"
#include "tests/qcow2/check/run_model.h"
#include "tests/support/random.h"

using namespace vc;

using map_test::check_equal;
using map_test::Piece;
using qcow2::Fragmentation;
using qcow2::Geometry;

namespace {

const Geometry kGeometry(16, false);
constexpr uint64_t kCluster = 1 << 16;

Fragmentation::Figures measure(const std::vector<Piece>& pieces) {
  Fragmentation fragmentation(kGeometry);
  for (const Piece& it : pieces) {
    if (it.compressed)
      fragmentation.compressed(HostOffset(it.at), it.length);
    else
      fragmentation.plain(HostOffset(it.at), it.length);
  }
  return fragmentation.figures();
}

// Returns the piece that a descriptor at `at` may read, if its stream has `bytes`.
Piece stream(uint64_t at, uint64_t bytes) {
  return {at, (at + bytes + 511) / 512 * 512 - at, true};
}

}  // namespace

TEST_CASE("clusters in guest order are one run", "[fragmentation]") {
  const auto figures = measure({{kCluster, kCluster, false},
                                {2 * kCluster, 3 * kCluster, false},
                                {5 * kCluster, kCluster, false}});
  CHECK(figures.runs == 1);
  CHECK(figures.seeks == 0);
  CHECK(figures.longest_run == 5 * kCluster);
  CHECK(figures.mean_run() == 5 * kCluster);
  CHECK(figures.percent(kGeometry) == 0);
}

TEST_CASE("compressed clusters that are packed are one run", "[fragmentation]") {
  std::vector<Piece> pieces;
  uint64_t at = 5 * kCluster;
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t bytes = 100 + i * 37 % 20000;
    pieces.push_back(stream(at, bytes));
    at += bytes;
  }
  const auto figures = measure(pieces);
  CHECK(figures.runs == 1);
  CHECK(figures.compressed_steps == 999);
  CHECK(figures.compressed_steps_near == 999);
  // No sector counts twice.
  CHECK(figures.read_bytes == (at + 511) / 512 * 512 - 5 * kCluster);
  CHECK(figures.percent(kGeometry) == 0);
}

TEST_CASE("an L2 table between clusters ends a run without a seek", "[fragmentation]") {
  const auto figures = measure({{kCluster, kCluster, false}, {3 * kCluster, kCluster, false}});
  CHECK(figures.runs == 2);
  CHECK(figures.seeks == 0);
  CHECK(figures.percent(kGeometry) == 100);
}

TEST_CASE("a long step in either direction is a seek", "[fragmentation]") {
  const uint64_t far = kCluster + (1 << 20) + kCluster;
  CHECK(measure({{0, kCluster, false}, {far, kCluster, false}}).seeks == 1);
  CHECK(measure({{0, kCluster, false}, {far - 1, kCluster, false}}).seeks == 1);
  CHECK(measure({{0, kCluster, false}, {far - kCluster, kCluster, false}}).seeks == 0);
  CHECK(measure({{1 << 24, kCluster, false}, {0, kCluster, false}}).seeks == 1);
}

TEST_CASE("an empty image has no fragmentation", "[fragmentation]") {
  check_equal(measure({}), {});
  CHECK(measure({}).mean_run() == 0);
  CHECK(measure({}).percent(kGeometry) == 0);
}

TEST_CASE("fragmentation agrees with its definition", "[fragmentation]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(300); ++i) {
    support::Random random(seed + i);
    CAPTURE(seed + i);
    std::vector<Piece> pieces;
    uint64_t at = 0;
    for (uint64_t n = random.below(200); n > 0; --n) {
      const bool compressed = random.chance(50);
      if (random.chance(30)) at = random.below(1 << 24);
      if (random.chance(10) && at > (2 << 20)) at -= random.below(2 << 20);
      if (compressed) {
        const uint64_t bytes = random.between(1, 30000);
        pieces.push_back(stream(at, bytes));
        at += bytes;
      } else {
        at = (at + kCluster - 1) / kCluster * kCluster;
        pieces.push_back({at, kCluster * random.between(1, 4), false});
        at = pieces.back().end();
      }
    }
    check_equal(measure(pieces), map_test::model(pieces, kCluster));
  }
}
