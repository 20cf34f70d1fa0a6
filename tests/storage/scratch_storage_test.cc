#include "storage/scratch_storage.h"

#include <algorithm>

#include "tests/catch_text.h"
#include "tests/support/memory_storage.h"
#include "tests/support/random.h"

using namespace vc;

using qcow2::MemoryStorage;

TEST_CASE("a scratch storage reads what was written, and does not change the storage below",
          "[scratch]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(20); ++i) {
    CAPTURE(seed + i);
    support::Random random(seed + i);
    std::vector<std::byte> bytes(random.between(0, 300000));
    for (std::byte& it : bytes) it = static_cast<std::byte>(random.below(256));
    const auto below = std::make_shared<MemoryStorage>("below", bytes);
    auto made = ScratchStorage::create(below);
    REQUIRE_OK(made);
    ScratchStorage& scratch = **made;
    MemoryStorage expected("expected", bytes);
    for (unsigned step = 0; step < 60; ++step) {
      const HostOffset at(random.below(400000));
      if (random.chance(20)) {
        REQUIRE_OK(scratch.resize(at.value()));
        REQUIRE_OK(expected.resize(at.value()));
        continue;
      }
      const std::vector<std::byte> piece(random.between(1, 150000),
                                         static_cast<std::byte>(random.below(256)));
      REQUIRE_OK(scratch.write(at, piece));
      REQUIRE_OK(expected.write(at, piece));
    }
    const auto wanted = expected.bytes();
    REQUIRE(*scratch.size() == wanted.size());
    std::vector<std::byte> got(wanted.size() + 1);
    REQUIRE(*scratch.read(HostOffset(0), got) == wanted.size());
    got.pop_back();
    CHECK(got == wanted);
    CHECK(below->bytes() == bytes);
  }
}
