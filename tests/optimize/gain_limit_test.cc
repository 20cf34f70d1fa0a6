// Limits of a gain, in percent and in bytes.
#include <optional>

#include "optimize/gain.h"
#include "tests/catch.h"

using namespace vc;

TEST_CASE("a limit may be a share, a size, or both", "[optimize]") {
  optimize::Gain gain;
  gain.before = 100 << 20;
  gain.expected = 80 << 20;
  const auto worth = [&](std::optional<uint64_t> bytes, double percent) {
    optimize::GainLimit limit;
    limit.said = true;
    limit.bytes = bytes;
    limit.percent = percent;
    return gain.is_worth(limit);
  };
  CHECK(worth(std::nullopt, 20));
  CHECK_FALSE(worth(std::nullopt, 21));
  CHECK(worth(20 << 20, 0));
  CHECK_FALSE(worth((20 << 20) + 1, 0));
  CHECK(worth(20 << 20, 20));
  CHECK_FALSE(worth(20 << 20, 21));
  CHECK_FALSE(worth((20 << 20) + 1, 20));
  CHECK(worth(std::nullopt, 0));
}
