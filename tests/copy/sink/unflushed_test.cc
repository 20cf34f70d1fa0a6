// Which writes count as done when a server dies.

#include "copy/sink/unflushed.h"

#include "tests/catch.h"

using namespace vc;

using copy::Unflushed;
using Record = Unflushed::Record;

TEST_CASE("writes that are not flushed are remembered", "[copy]") {
  Unflushed unflushed;
  CHECK(unflushed.add(0, {{0, 10, false, 1}, {10, 10, true, 0}}));
  CHECK(unflushed.add(0, {{20, 10, true, 0}, {30, 5, false, 2}}));
  auto records = unflushed.begin_epoch();
  // The two adjacent ranges of zeros are joined.
  REQUIRE(records.size() == 3);
  CHECK(records[0].digest == 1);
  CHECK(records[1].at == 10);
  CHECK(records[1].length == 20);
  CHECK(records[2].digest == 2);

  unflushed.flushing();
  CHECK(unflushed.add(unflushed.epoch(), {{35, 5, false, 3}}));
  // Nothing is safe until the server has acknowledged a flush.
  CHECK(unflushed.begin_epoch().size() == 4);
  unflushed.flushed();
  records = unflushed.begin_epoch();
  REQUIRE(records.size() == 1);
  CHECK(records[0].digest == 3);
}

TEST_CASE("a flush does not cover zeros that are requested after its start", "[copy]") {
  Unflushed unflushed;
  CHECK(unflushed.add(0, {{0, 10, true, 0}}));
  unflushed.flushing();
  CHECK(unflushed.add(0, {{10, 10, true, 0}}));
  unflushed.flushed();
  const auto records = unflushed.begin_epoch();
  REQUIRE(records.size() == 1);
  CHECK(records[0].at == 10);
}

TEST_CASE("writes during a reconnect do not count", "[copy]") {
  Unflushed unflushed;
  const uint64_t before = unflushed.epoch();
  CHECK(unflushed.begin_epoch().empty());
  CHECK_FALSE(unflushed.add(before, {{0, 10, false, 1}}));
  CHECK(unflushed.begin_epoch().empty());
  CHECK(unflushed.add(unflushed.epoch(), {{0, 10, false, 1}}));
  CHECK(unflushed.begin_epoch().size() == 1);
}

TEST_CASE("the amount of unflushed data is limited", "[copy]") {
  Unflushed unflushed;
  const uint64_t most = uint64_t{4} << 30;
  CHECK(unflushed.add(0, {{0, most - 1, false, 1}, {most, uint64_t{1} << 40, true, 0}}));
  CHECK_FALSE(unflushed.claim_flush());
  CHECK(unflushed.add(0, {{most - 1, 1, false, 1}}));
  CHECK(unflushed.claim_flush());
  // One flush is enough.
  CHECK_FALSE(unflushed.claim_flush());
  unflushed.flushing();
  unflushed.flushed();
  CHECK_FALSE(unflushed.claim_flush());
  for (uint64_t i = 0; i < 65536; ++i) CHECK(unflushed.add(0, {{2 * i, 1, false, 1}}));
  CHECK(unflushed.claim_flush());
}
