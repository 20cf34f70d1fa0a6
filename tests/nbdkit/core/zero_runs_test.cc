#include "nbdkit/core/zero_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/support/random.h"

using namespace vc;

using nbdkit::ZeroRuns;
using support::Random;

namespace {

constexpr uint64_t kGranule = 1024;
constexpr uint64_t kLong = 64 << 10;

std::vector<ZeroRuns::Run> runs_of(const std::vector<std::byte>& data, uint64_t offset,
                                   uint64_t granularity = kGranule) {
  std::vector<ZeroRuns::Run> runs;
  ZeroRuns zero_runs(data, offset, granularity);
  while (const auto run = zero_runs.next()) runs.push_back(*run);
  return runs;
}

// Formats runs: "z100+50 d150+7" is a run of zeros and one of data.
std::string text(const std::vector<ZeroRuns::Run>& runs) {
  std::string text;
  for (const auto& it : runs)
    text += fmt::format("{}{}{}+{}", text.empty() ? "" : " ", it.zero ? 'z' : 'd', it.offset,
                        it.length);
  return text;
}

// Returns the runs of a request at `offset` that is nonzero in the given ranges, in disk offsets.
std::string runs_with_data(uint64_t offset, uint64_t length,
                           const std::vector<std::pair<uint64_t, uint64_t>>& data) {
  std::vector<std::byte> bytes(length);
  for (const auto& [begin, end] : data)
    for (uint64_t at = begin; at < end; ++at) bytes[at - offset] = std::byte{0xff};
  return text(runs_of(bytes, offset));
}

}  // namespace

TEST_CASE("a request with only data or only zeros is one run", "[zero runs]") {
  CHECK(runs_with_data(0, 8192, {{0, 8192}}) == "d0+8192");
  CHECK(runs_with_data(0, 8192, {}) == "z0+8192");
  CHECK(runs_with_data(0, 0, {}).empty());
}

TEST_CASE("a request of zeros alone is a zero run at any place and length", "[zero runs]") {
  CHECK(runs_with_data(3, 1, {}) == "z3+1");
  CHECK(runs_with_data(1000, 100, {}) == "z1000+100");
  CHECK(runs_with_data(5000, 700, {}) == "z5000+700");
}

TEST_CASE("whole granules of the disk are found inside a request", "[zero runs]") {
  CHECK(runs_with_data(0, 4096, {{0, 1}, {4095, 4096}}) == "d0+1024 z1024+2048 d3072+1024");
  // Zeros as long as a granule, but unaligned.
  CHECK(runs_with_data(0, 3072, {{0, 500}, {1524 + 100, 3072}}) == "d0+3072");
  // Aligned in the buffer, but not on the disk.
  CHECK(runs_with_data(100, 3072, {{100, 1124}, {2148, 3172}}) == "d100+3072");
  CHECK(runs_with_data(100, 3072, {{100, 1024}, {2048, 3172}}) == "d100+924 z1024+1024 d2048+1124");
  CHECK(runs_with_data(0, 4096, {{0, 1}, {2048, 2049}}) ==
        "d0+1024 z1024+1024 d2048+1024 z3072+1024");
}

TEST_CASE("a part of a granule counts at the edges of a request", "[zero runs]") {
  CHECK(runs_with_data(1000, 2000, {{2900, 3000}}) == "z1000+1048 d2048+952");
  CHECK(runs_with_data(0, 3000, {{0, 1}}) == "d0+1024 z1024+1976");
  CHECK(runs_with_data(1024, 1500, {{1024, 1025}}) == "d1024+1024 z2048+476");
  CHECK(runs_with_data(500, 1500, {{1999, 2000}}) == "z500+524 d1024+976");
  // A zero part of a granule that also has data does not count.
  CHECK(runs_with_data(500, 400, {{500, 501}}) == "d500+400");
}

TEST_CASE("zeros in many places do not make many requests", "[zero runs]") {
  // Alternates granules of zeros and data, then adds a long run of zeros, and again alternating
  // granules.
  const uint64_t alternating = 1000 * kGranule;
  std::vector<std::byte> data(2 * alternating + 2 * kLong);
  for (uint64_t at = 0; at < data.size(); at += 2 * kGranule)
    if (at < alternating || at >= alternating + 2 * kLong) data[at] = std::byte{1};
  const auto runs = runs_of(data, 0);
  CHECK(runs.size() == 2 * 63 + 3);
  const auto& last_zero = runs[runs.size() - 2];
  CHECK(last_zero.zero);
  CHECK(last_zero.length == kGranule + 2 * kLong);
  CHECK(runs.back().length == alternating);

  std::vector<std::byte> worst(64 << 20);
  for (uint64_t at = 0; at < worst.size(); at += kLong + kGranule) worst[at] = std::byte{1};
  CHECK(runs_of(worst, 0).size() > 1000);
  CHECK(runs_of(worst, 0).size() <= 2 * (64 + worst.size() / kLong) + 1);
}

TEST_CASE("random requests are split into data and zeros", "[zero runs]") {
  const uint64_t seed = support::base_seed();
  const uint64_t count = support::iterations(3000);
  for (uint64_t i = 0; i < count; ++i) {
    CAPTURE(seed + i);
    Random random(seed + i);
    const uint64_t granularity = uint64_t{512} << random.below(4);
    const uint64_t offset = random.below(20000);
    std::vector<std::byte> data(random.below(60000));
    for (uint64_t at = 0; at < data.size();) {
      const uint64_t length = std::min(data.size() - at, 1 + random.below(6000));
      if (random.chance(50)) data[at + random.below(length)] = std::byte{1};
      at += length;
    }
    const auto zero = [&](uint64_t begin, uint64_t end) {
      return std::all_of(data.begin() + begin - offset, data.begin() + end - offset,
                         [](std::byte it) { return it == std::byte{0}; });
    };

    const auto runs = runs_of(data, offset, granularity);
    const uint64_t end = offset + data.size();
    uint64_t at = offset;
    for (size_t n = 0; n < runs.size(); ++n) {
      const auto& run = runs[n];
      REQUIRE(run.offset == at);
      REQUIRE(run.length > 0);
      at += run.length;
      if (n > 0) REQUIRE(run.zero != runs[n - 1].zero);
      // Runs end only at granule boundaries.
      if (at != end) REQUIRE(at % granularity == 0);
      if (run.zero) REQUIRE(zero(run.offset, at));
      if (run.zero) continue;
      // Checks that no zero granule was missed.
      for (uint64_t begin = run.offset, next = 0; begin < at; begin = next) {
        next = std::min(at, (begin / granularity + 1) * granularity);
        REQUIRE_FALSE(zero(begin, next));
      }
    }
    REQUIRE(at == end);
    if (runs.size() == 1) REQUIRE(runs[0].zero == zero(offset, end));
  }
}
