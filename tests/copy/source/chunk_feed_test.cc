#include "copy/source/chunk_feed.h"

#include <fmt/format.h>

#include <thread>

#include "tests/catch_text.h"
#include "tests/copy/source/pattern_source.h"

using namespace vc;

using copy::Chunk;
using copy::ChunkFeed;
using qcow2::ExtentKind;
using qcow2::Geometry;
using test::PatternSource;

namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

struct Fed {
  size_t chunks = 0;
  uint64_t bytes = 0;  // in chunks, of the disk
};

// Returns true if all of [from, to) reads as zeros; with `zeros` false, if all of it is data.
bool all_zeros(const PatternSource& source, GuestOffset from, GuestOffset to, bool zeros = true) {
  for (uint64_t at = from.value(); at < to.value(); at = source.stretch_at(at).end().value())
    if (source.stretch_at(at).reads_as_zero() != zeros) return false;
  return true;
}

// Returns what is wrong with a chunk that should begin at `done`. nullptr: nothing.
const char* complaint(const PatternSource& source, const Geometry& geometry, uint64_t chunk_size,
                      GuestOffset done, const Chunk& chunk) {
  if (chunk.extents.empty()) return "it has no extents";
  if (chunk.begin() < done) return "it begins before the end of the last one";
  if (chunk.begin().value() % source.alignment() != 0) return "it is not aligned";
  if (chunk.begin() != geometry.start_of(chunk.first)) return "its first cluster is another";
  if (!all_zeros(source, done, chunk.begin())) return "data was passed over";
  const uint64_t length = chunk.end() - chunk.begin();
  if (length > std::max({chunk_size, geometry.cluster_size(), source.alignment()}))
    return "it is too large";
  if (chunk.clusters.size() != geometry.clusters_for(length)) return "its clusters are not counted";
  if (chunk.bytes.size() < chunk.clusters.size() * geometry.cluster_size())
    return "its memory is too small";
  if (chunk.end().value() % geometry.cluster_size() != 0 && chunk.end().value() != source.size())
    return "it ends inside a cluster";

  bool any_data = false;
  GuestOffset at = chunk.begin();
  for (const qcow2::Extent& extent : chunk.extents) {
    if (extent.guest != at || extent.length == 0) return "its extents leave gaps";
    at = extent.end();
    if (!all_zeros(source, extent.guest, at, extent.reads_as_zero())) return "an extent lies";
    if (extent.kind != ExtentKind::kData) continue;
    any_data = true;
    if (extent.host.value() != extent.guest.value()) return "an extent leads elsewhere";
  }
  return any_data ? nullptr : "it has no data";
}

// Takes all chunks. Checks that they and the skipped ranges form the disk, or its part [begin,
// end), in order.
Fed drain(PatternSource& source, ChunkFeed& feed, const Geometry& geometry, uint64_t chunk_size,
          uint64_t begin = 0, uint64_t end = copy::Source::kUnknownSize) {
  Fed fed;
  GuestOffset done(begin);
  end = std::min(end, source.size());
  while (true) {
    auto next = feed.next(ChunkFeed::Wait::kNo);
    REQUIRE_OK(next);
    if (!*next) break;
    Chunk& chunk = **next;
    const char* const wrong = complaint(source, geometry, chunk_size, done, chunk);
    if (wrong || chunk.sequence != fed.chunks)
      FAIL(fmt::format("chunk {} of number {}, after {:#x}: {}", fed.chunks, chunk.sequence,
                       done.value(), wrong ? wrong : "the number is wrong"));
    done = chunk.end();
    fed.bytes += chunk.end() - chunk.begin();
    ++fed.chunks;
    feed.recycle(&chunk);
  }
  REQUIRE(done.value() <= end);
  REQUIRE(all_zeros(source, done, GuestOffset(end)));
  REQUIRE(feed.exhausted());
  REQUIRE(fed.bytes + feed.skipped() == end);
  return fed;
}

}  // namespace

TEST_CASE("chunks and skipped ranges cover the whole disk", "[copy]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(100); ++i) {
    support::Random random(seed + i);
    INFO(fmt::format("VIRT_COMPACT_SEED={}", seed + i));
    const auto cluster_bits = static_cast<unsigned>(random.between(9, 18));
    const uint64_t chunk_size = uint64_t{1} << random.between(9, 20);
    const uint64_t alignment = random.chance(50) ? 1 : uint64_t{1} << random.between(9, 16);
    const uint64_t unit = std::max<uint64_t>(alignment, random.chance(30) ? 1 : 512);
    auto stretches = test::random_stretches(random, unit, random.between(1, 2000), 200);
    PatternSource source(stretches, alignment, random.between(1, 30));
    const Geometry geometry(cluster_bits, false);
    const Cancel cancel;
    const Stop stop(cancel);
    ChunkFeed feed(source, {geometry, chunk_size, 1, false}, stop);
    drain(source, feed, geometry, chunk_size);
  }
}

TEST_CASE("parts of a disk are divided like a disk", "[copy]") {
  const uint64_t seed = support::base_seed();
  for (uint64_t i = 0; i < support::iterations(100); ++i) {
    support::Random random(seed + i);
    INFO(fmt::format("VIRT_COMPACT_SEED={}", seed + i));
    const Geometry geometry(static_cast<unsigned>(random.between(9, 18)), false);
    const uint64_t chunk_size = uint64_t{1} << random.between(9, 20);
    auto stretches = test::random_stretches(random, 512, random.between(1, 2000), 200);
    PatternSource source(stretches, 1, random.between(1, 30));
    const uint64_t middle =
        random.between(0, source.size()) / geometry.cluster_size() * geometry.cluster_size();
    const Cancel cancel;
    const Stop stop(cancel);
    for (const auto& [begin, end] :
         {std::pair(uint64_t{0}, middle), std::pair(middle, copy::Source::kUnknownSize)}) {
      ChunkFeed feed(source, {geometry, chunk_size, 1, false, false, nullptr, begin, end}, stop);
      drain(source, feed, geometry, chunk_size, begin, end);
    }
  }
}

TEST_CASE("a huge empty disk has no chunks and is skipped at once", "[copy]") {
  PatternSource source(
      {{16 << 10, ExtentKind::kZero}, {16 * 1024 * kGiB, ExtentKind::kUnallocated}});
  const Geometry geometry(16, false);
  const Cancel cancel;
  const Stop stop(cancel);
  ChunkFeed feed(source, {geometry, 1 << 20, 2, false}, stop);
  CHECK(drain(source, feed, geometry, 1 << 20).chunks == 0);
  CHECK(feed.skipped() == source.size());
  CHECK(source.maps == 1);
}

TEST_CASE("one byte of data in a huge disk is one cluster", "[copy]") {
  PatternSource source(
      {{5 * kGiB + 7, ExtentKind::kZero}, {1, ExtentKind::kData}, {kGiB, ExtentKind::kZero}});
  const Geometry geometry(16, false);
  const Cancel cancel;
  const Stop stop(cancel);
  ChunkFeed feed(source, {geometry, 1 << 20, 1, false}, stop);
  const Fed fed = drain(source, feed, geometry, 1 << 20);
  CHECK(fed.chunks == 1);
  CHECK(fed.bytes == 64 << 10);
}

TEST_CASE("an empty disk has no chunks", "[copy]") {
  PatternSource source({});
  const Cancel cancel;
  const Stop stop(cancel);
  ChunkFeed feed(source, {Geometry(16, false), 1 << 20, 1, false}, stop);
  const auto next = feed.next(ChunkFeed::Wait::kYes);
  REQUIRE_OK(next);
  CHECK(*next == nullptr);
  CHECK(feed.exhausted());
}

TEST_CASE("without free memory, the next chunk waits until another is recycled", "[copy]") {
  PatternSource source({{4 << 20, ExtentKind::kData}});
  const Cancel cancel;
  const Stop stop(cancel);
  ChunkFeed feed(source, {Geometry(16, false), 1 << 20, 2, false}, stop);
  const auto first = feed.next(ChunkFeed::Wait::kNo);
  const auto second = feed.next(ChunkFeed::Wait::kNo);
  REQUIRE_OK(first);
  REQUIRE_OK(second);
  REQUIRE(*first != nullptr);
  REQUIRE(*second != nullptr);
  const auto third = feed.next(ChunkFeed::Wait::kNo);
  REQUIRE_OK(third);
  CHECK(*third == nullptr);
  CHECK_FALSE(feed.exhausted());

  std::thread giver([&] { feed.recycle(*first); });
  const auto waited = feed.next(ChunkFeed::Wait::kYes);
  giver.join();
  REQUIRE_OK(waited);
  REQUIRE(*waited != nullptr);
  CHECK((*waited)->sequence == 2);
}

TEST_CASE("a stop ends the wait for memory", "[copy]") {
  PatternSource source({{4 << 20, ExtentKind::kData}});
  Cancel cancel;
  const Stop stop(cancel);
  ChunkFeed feed(source, {Geometry(16, false), 1 << 20, 1, false}, stop);
  REQUIRE_OK(feed.next(ChunkFeed::Wait::kYes));
  std::thread user([&] { cancel.request(); });
  const auto none = feed.next(ChunkFeed::Wait::kYes);
  user.join();
  REQUIRE_OK(none);
  CHECK(*none == nullptr);
}
