#include "bench/histogram.h"

#include <algorithm>
#include <cmath>

#include "tests/catch_text.h"
#include "tests/support/random.h"

using namespace vc;

using bench::Histogram;

TEST_CASE("percentiles are never too low, and at most 0.8 % too high", "[histogram]") {
  const uint64_t seed = support::base_seed();
  CAPTURE(seed);
  support::Random random(seed);
  for (unsigned round = 0; round < 20; ++round) {
    std::vector<uint64_t> values(random.between(1, 3000));
    Histogram whole, left, right;
    for (uint64_t& value : values) {
      // Every magnitude is as likely as every other.
      value = random.next() >> random.below(64);
      whole.add(value);
      (random.chance(50) ? left : right).add(value);
    }
    left.add(right);
    std::sort(values.begin(), values.end());
    CHECK(whole.count() == values.size());
    CHECK(whole.min() == values.front());
    CHECK(whole.max() == values.back());
    for (const double percent : {0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
      const auto rank =
          static_cast<size_t>(std::ceil(percent / 100 * static_cast<double>(values.size())));
      const uint64_t exact = values[rank == 0 ? 0 : rank - 1];
      const uint64_t told = whole.percentile(percent);
      CAPTURE(percent, exact, told);
      CHECK(told >= exact);
      CHECK(static_cast<double>(told - exact) <= static_cast<double>(exact) * Histogram::kError);
      CHECK(left.percentile(percent) == told);
    }
  }
}

TEST_CASE("small values are exact, and an empty histogram is empty", "[histogram]") {
  Histogram histogram;
  CHECK(histogram.percentile(50) == 0);
  CHECK(histogram.min() == 0);
  CHECK(histogram.mean() == 0);
  for (uint64_t value = 0; value < 256; ++value) histogram.add(value);
  for (unsigned percent = 1; percent <= 100; ++percent)
    CHECK(histogram.percentile(percent) == static_cast<uint64_t>(std::ceil(percent * 2.56)) - 1);
  CHECK(histogram.mean() == 127.5);
}
