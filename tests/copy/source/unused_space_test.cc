// How extents are split at ranges that the guest does not use.
#include "copy/source/unused_space.h"

#include <algorithm>

#include "guest/reading/ranges.h"
#include "tests/catch.h"
#include "tests/support/random.h"

namespace vc::copy {

using qcow2::Extent;
using qcow2::ExtentKind;

namespace {

constexpr uint64_t kK = 1 << 10;

std::shared_ptr<const guest::Ranges> ranges(
    const std::vector<std::pair<uint64_t, uint64_t>>& list) {
  guest::Ranges::Builder builder;
  for (const auto& [begin, end] : list) builder.add(begin, end);
  return std::make_shared<const guest::Ranges>(builder.take());
}

Extent extent(uint64_t begin, uint64_t end, ExtentKind kind) {
  Extent it;
  it.guest = GuestOffset(begin);
  it.length = end - begin;
  it.kind = kind;
  it.host = HostOffset(begin + (1 << 30));
  if (kind == ExtentKind::kCompressed) it.compressed_length = 512;
  return it;
}

// Returns true if the extents cover [begin, …) without a gap.
bool in_a_row(const std::vector<Extent>& extents, uint64_t begin) {
  for (const Extent& it : extents) {
    if (it.guest.value() != begin || it.length == 0) return false;
    begin = it.end().value();
  }
  return true;
}

}  // namespace

TEST_CASE("unused parts of data become zeros", "[unused]") {
  const UnusedSpace unused(ranges({{0, 8 * kK}, {20 * kK, 24 * kK}, {40 * kK, 41 * kK}}), 1);
  std::vector<Extent> extents{extent(4 * kK, 48 * kK, ExtentKind::kData)};
  unused.split(extents, 0, 100);
  REQUIRE(extents.size() == 4);
  REQUIRE(in_a_row(extents, 4 * kK));
  CHECK(extents[0].kind == ExtentKind::kZero);
  CHECK(extents[0].end() == GuestOffset(8 * kK));
  CHECK(extents[1].kind == ExtentKind::kData);
  CHECK(extents[1].host == HostOffset(8 * kK + (1 << 30)));
  CHECK(extents[2].kind == ExtentKind::kZero);
  CHECK(extents[2].guest == GuestOffset(20 * kK));
  CHECK_FALSE(extents[2].preallocated);
  // 1 KiB is too short for an extent of its own.
  CHECK(extents[3].kind == ExtentKind::kData);
  CHECK(extents[3].end() == GuestOffset(48 * kK));
}

TEST_CASE("a compressed cluster becomes zero as a whole or not at all", "[unused]") {
  const UnusedSpace unused(ranges({{0, 64 * kK}, {100 * kK, 192 * kK}}), 1);
  std::vector<Extent> extents{extent(0, 64 * kK, ExtentKind::kCompressed),
                              extent(64 * kK, 128 * kK, ExtentKind::kCompressed),
                              extent(128 * kK, 192 * kK, ExtentKind::kCompressed)};
  unused.split(extents, 0, 100);
  REQUIRE(extents.size() == 3);
  REQUIRE(in_a_row(extents, 0));
  CHECK(extents[0].kind == ExtentKind::kZero);
  CHECK(extents[1].kind == ExtentKind::kCompressed);
  CHECK(extents[1].host == HostOffset(64 * kK + (1 << 30)));
  CHECK(extents[1].compressed_length == 512);
  CHECK(extents[2].kind == ExtentKind::kZero);
  CHECK(extents[2].compressed_length == 0);
}

TEST_CASE("ranges that read as zeros are not changed", "[unused]") {
  const UnusedSpace unused(ranges({{0, 192 * kK}}), 1);
  std::vector<Extent> extents{extent(0, 64 * kK, ExtentKind::kUnallocated),
                              extent(64 * kK, 128 * kK, ExtentKind::kZero)};
  unused.split(extents, 0, 100);
  REQUIRE(extents.size() == 2);
  CHECK(extents[0].kind == ExtentKind::kUnallocated);
  CHECK(extents[1].kind == ExtentKind::kZero);
}

TEST_CASE("parts keep to the alignment of the source", "[unused]") {
  const UnusedSpace unused(ranges({{5 * kK, 29 * kK}}), 8 * kK);
  std::vector<Extent> extents{extent(0, 64 * kK, ExtentKind::kData)};
  unused.split(extents, 0, 100);
  REQUIRE(extents.size() == 3);
  CHECK(extents[1].guest == GuestOffset(8 * kK));
  CHECK(extents[1].end() == GuestOffset(24 * kK));
}

TEST_CASE("random splits agree with a model of bytes", "[unused]") {
  for (uint64_t i = 0; i < support::iterations(200); ++i) {
    support::Random random(support::base_seed() + i);
    INFO("VIRT_COMPACT_SEED=" << support::base_seed() + i << " VIRT_COMPACT_ITERATIONS=1");
    constexpr uint64_t kUnit = 2 * kK;
    constexpr uint64_t kUnits = 64;
    std::vector<bool> free(kUnits);
    guest::Ranges::Builder builder;
    for (uint64_t at = 0; at < kUnits; ++at) {
      free[at] = random.chance(60);
      if (free[at]) builder.add(at * kUnit, (at + 1) * kUnit);
    }
    const UnusedSpace unused(std::make_shared<const guest::Ranges>(builder.take()), 1);
    std::vector<Extent> before;
    for (uint64_t at = 0; at < kUnits;) {
      const uint64_t end = std::min(at + random.between(1, 20), kUnits);
      before.push_back(extent(
          at * kUnit, end * kUnit,
          random.pick(std::vector<ExtentKind>{ExtentKind::kData, ExtentKind::kCompressed,
                                              ExtentKind::kZero, ExtentKind::kUnallocated})));
      at = end;
    }
    const size_t first = random.below(before.size());
    const size_t most = first + random.between(1, 80);
    std::vector<Extent> after = before;
    unused.split(after, first, most);
    REQUIRE(after.size() > first);
    CHECK(after.size() <= most);
    REQUIRE(in_a_row(after, 0));
    const auto kind_at = [](const std::vector<Extent>& extents, uint64_t at) {
      return std::find_if(extents.begin(), extents.end(),
                          [at](const Extent& it) { return it.end().value() > at; });
    };
    for (uint64_t at = before[first].guest.value(); at < after.back().end().value(); at += kUnit) {
      const Extent& was = *kind_at(before, at);
      const Extent& is = *kind_at(after, at);
      if (is.kind == ExtentKind::kData)
        CHECK(is.host.value() - is.guest.value() == was.host.value() - was.guest.value());
      if (is.kind == was.kind) continue;
      CHECK(is.kind == ExtentKind::kZero);
      CHECK(free[at / kUnit]);
    }
    // Finds every unused range that is long enough, unless the list of extents was truncated.
    if (after.size() == most) continue;
    for (uint64_t at = before[first].guest.value() / kUnit; at + 1 < kUnits; ++at)
      if (free[at] && free[at + 1] &&
          kind_at(before, at * kUnit) == kind_at(before, (at + 1) * kUnit) &&
          kind_at(before, at * kUnit)->kind == ExtentKind::kData)
        CHECK(kind_at(after, at * kUnit)->kind == ExtentKind::kZero);
  }
}

}  // namespace vc::copy
