#include "appliance/data_map.h"

#include <algorithm>
#include <vector>

#include "tests/catch.h"
#include "tests/support/random.h"

using namespace vc;

using appliance::DataMap;
using Stretches = std::vector<ByteRange>;

namespace {

constexpr uint64_t kSize = 256;

DataMap map_of(const std::vector<bool>& bytes) {
  DataMap map;
  for (uint64_t at = 0; at < bytes.size(); ++at)
    if (bytes[at]) map.add(at, at + 1);
  return map;
}

std::vector<bool> bytes_of(const DataMap& map) {
  std::vector<bool> bytes(kSize);
  for (const auto& it : map.stretches())
    for (uint64_t at = it.begin; at < it.end; ++at) bytes.at(at) = true;
  return bytes;
}

std::vector<bool> random_bytes(support::Random& random) {
  std::vector<bool> bytes(kSize);
  const unsigned percent = static_cast<unsigned>(random.between(1, 99));
  bool value = false;
  for (uint64_t at = 0; at < kSize; ++at) {
    if (random.chance(percent)) value = !value;
    bytes[at] = value;
  }
  return bytes;
}

}  // namespace

TEST_CASE("adjacent ranges are joined") {
  DataMap map;
  map.add(10, 20);
  map.add(20, 30);
  map.add(40, 40);
  map.add(50, 60);
  CHECK(map.stretches() == Stretches{{10, 30}, {50, 60}});
  CHECK(map.bytes() == 30);
}

TEST_CASE("widening and subtracting maps agrees with a model of bytes") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(200); ++i) {
    INFO("seed " << seed + i);
    support::Random random(seed + i);
    const auto a = random_bytes(random);
    const auto b = random_bytes(random);
    const uint64_t unit = uint64_t{1} << random.below(6);
    std::vector<bool> wide(kSize);
    std::vector<bool> rest(kSize);
    for (uint64_t at = 0; at < kSize; ++at) {
      rest[at] = a[at] && !b[at];
      for (uint64_t in = at / unit * unit; in < at / unit * unit + unit; ++in)
        if (a[in]) wide[at] = true;
    }
    REQUIRE(bytes_of(map_of(a).widened(unit)) == wide);
    const DataMap without = map_of(a).without(map_of(b));
    REQUIRE(bytes_of(without) == rest);
    REQUIRE(without.bytes() == static_cast<uint64_t>(std::count(rest.begin(), rest.end(), true)));
  }
}
