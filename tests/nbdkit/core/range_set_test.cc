#include "nbdkit/core/range_set.h"

#include <vector>

#include "tests/catch.h"
#include "tests/support/random.h"

using namespace vc;

using nbdkit::RangeSet;
using support::Random;

TEST_CASE("the oldest range is the one that has not grown for the longest time", "[range set]") {
  RangeSet set;
  set.add({10, 20});
  set.add({30, 40});
  set.add({50, 60});
  CHECK(set.oldest().begin == 10);
  set.add({20, 22});
  CHECK(set.oldest().begin == 30);
  CHECK(set.remove({0, 100}) == 32);
  CHECK(set.empty());
}

TEST_CASE("random additions and removals agree with a model", "[range set]") {
  const uint64_t seed = support::base_seed();
  const uint64_t count = support::iterations(300);
  constexpr uint64_t kSize = 200;
  for (uint64_t i = 0; i < count; ++i) {
    CAPTURE(seed + i);
    Random random(seed + i);
    RangeSet set;
    std::vector<bool> model(kSize);
    for (int step = 0; step < 100; ++step) {
      const uint64_t begin = random.below(kSize);
      const ByteRange range{begin, begin + random.below(std::min<uint64_t>(kSize - begin, 20) + 1)};
      uint64_t were_in = 0;
      for (uint64_t at = range.begin; at < range.end; ++at) were_in += model[at];
      const bool add = random.chance(50);
      if (add)
        set.add(range);
      else
        REQUIRE(set.remove(range) == were_in);
      for (uint64_t at = range.begin; at < range.end; ++at) model[at] = add;

      std::vector<bool> is(kSize);
      size_t ranges = 0;
      uint64_t bytes = 0;
      uint64_t last = 0;
      for (auto it = set.first_from(0); it; it = set.first_from(it->end)) {
        REQUIRE(it->begin < it->end);
        if (ranges > 0) REQUIRE(it->begin > last);  // does not touch
        last = it->end;
        for (uint64_t at = it->begin; at < it->end; ++at) is[at] = true;
        ++ranges;
        bytes += it->length();
        const auto by_begin = set.beginning_at(it->begin);
        const auto by_end = set.ending_at(it->end);
        REQUIRE((by_begin && by_begin->end == it->end));
        REQUIRE((by_end && by_end->begin == it->begin));
        REQUIRE_FALSE(set.beginning_at(it->end));
      }
      REQUIRE(is == model);
      REQUIRE(set.count() == ranges);
      REQUIRE(set.bytes() == bytes);
      if (!set.empty()) REQUIRE(set.beginning_at(set.oldest().begin)->end == set.oldest().end);
    }
  }
}
