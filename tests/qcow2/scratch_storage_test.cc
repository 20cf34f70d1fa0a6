#include "qcow2/scratch_storage.h"

#include <algorithm>

#include "qcow2/memory_storage.h"
#include "tests/catch_text.h"
#include "tests/support/random.h"

using qcow2::HostOffset;
using qcow2::MemoryStorage;
using qcow2::ScratchStorage;

TEST_CASE("a scratch storage reads as one that was written, and leaves what is below",
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
      if (random.chance(30)) {
        const uint64_t length = random.below(300000);
        REQUIRE_OK(scratch.write_zeroes(at, length));
        REQUIRE_OK(expected.write_zeroes(at, length));
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
    // What is said to be a hole is one.
    for (uint64_t at = 0; at < got.size();) {
      const auto run = scratch.run_at(HostOffset(at), got.size() - at);
      REQUIRE_OK(run);
      REQUIRE(run->length > 0);
      const auto begin = got.begin() + static_cast<ptrdiff_t>(at);
      if (!run->data)
        CHECK(std::all_of(begin, begin + static_cast<ptrdiff_t>(run->length),
                          [](std::byte it) { return it == std::byte{0}; }));
      at += run->length;
    }
  }
}
