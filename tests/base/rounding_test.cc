#include "base/rounding.h"

#include "tests/catch.h"

namespace vc {
namespace {

TEST_CASE("numbers are divided and rounded, also at the end of the range", "[rounding]") {
  CHECK(divide_up(0, 512) == 0);
  CHECK(divide_up(1, 512) == 1);
  CHECK(divide_up(512, 512) == 1);
  CHECK(divide_up(513, 512) == 2);
  CHECK(divide_up(UINT64_MAX, 2) == uint64_t{1} << 63);
  CHECK(round_up(513, 512) == 1024);
  CHECK(round_up(1024, 512) == 1024);
  CHECK(round_up(UINT64_MAX - 600, 512) == UINT64_MAX - 511);
  CHECK(round_down(1023, 512) == 512);
  CHECK(round_down(UINT64_MAX, 1 << 16) == UINT64_MAX - 0xffff);
}

}  // namespace
}  // namespace vc
