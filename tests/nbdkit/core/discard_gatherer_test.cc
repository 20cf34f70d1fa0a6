#include "nbdkit/core/discard_gatherer.h"

#include <fmt/format.h>

#include <chrono>
#include <future>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/support/random.h"

using namespace vc;

using nbdkit::DiscardGatherer;
using Kind = DiscardGatherer::Piece::Kind;
using support::Random;

namespace {

constexpr uint64_t kGranule = 1024;
constexpr uint64_t kSmallest = 256;

DiscardGatherer::Options options(uint64_t size = 16 * kGranule) {
  return {.size = size, .granularity = kGranule, .smallest = kSmallest};
}

// Formats a batch: "G1024+2048" for a trim of granules, "t" for one of a fragment, "z" for a
// fragment that is zeroed.
std::string text(DiscardGatherer::Batch&& batch) {
  std::string text;
  while (const auto piece = batch.next())
    text += fmt::format("{}{}{}+{}", text.empty() ? "" : " ",
                        piece->kind == Kind::kGranules       ? 'G'
                        : piece->kind == Kind::kTrimFragment ? 't'
                                                             : 'z',
                        piece->offset, piece->length);
  return text;
}

}  // namespace

TEST_CASE("whole granules of a trim are sent at once", "[gatherer]") {
  DiscardGatherer gatherer(options());
  CHECK(text(gatherer.trim(1000, 3000)) == "G1024+2048");
  CHECK(text(gatherer.trim(8192, 4 * kGranule)) == "G8192+4096");
  CHECK(text(gatherer.trim(5000, 0)).empty());
}

TEST_CASE("fragments are joined into granules", "[gatherer]") {
  DiscardGatherer gatherer(options());
  CHECK(text(gatherer.trim(0, 500)).empty());
  CHECK(text(gatherer.trim(600, 424)).empty());
  CHECK(text(gatherer.trim(500, 100)) == "G0+1024");
  CHECK(gatherer.statistics().joined_bytes == 924);
  // A trim in the middle completes granules on both sides.
  CHECK(text(gatherer.trim(2048, 1000)).empty());
  CHECK(text(gatherer.trim(4000, 1120)) == "G4096+1024");
  CHECK(text(gatherer.trim(3000, 1000)) == "G2048+2048");
  // The part past a granule boundary stays held.
  CHECK(text(gatherer.trim(6144, 1000)).empty());
  CHECK(text(gatherer.trim(7144, 100)) == "G6144+1024");
}

TEST_CASE("the last granule of a disk may be a short one", "[gatherer]") {
  DiscardGatherer gatherer(options(3 * kGranule + 100));
  CHECK(text(gatherer.trim(3 * kGranule, 50)).empty());
  CHECK(text(gatherer.trim(3 * kGranule + 50, 50)) == "G3072+100");
  CHECK(text(gatherer.trim(1 * kGranule, 3 * kGranule)) == "G1024+2148");
}

TEST_CASE("a write removes its range from the held trims", "[gatherer]") {
  DiscardGatherer gatherer(options());
  CHECK(text(gatherer.trim(0, 1000)).empty());
  { const auto writing = gatherer.begin_write(500, 1); }
  CHECK(gatherer.statistics().overwritten_bytes == 1);
  CHECK(text(gatherer.trim(1000, 24)).empty());
  CHECK(text(gatherer.trim(500, 1)) == "G0+1024");
}

TEST_CASE("a granule is complete again when the bytes written to it are trimmed", "[gatherer]") {
  DiscardGatherer gatherer(options());
  CHECK(text(gatherer.trim(0, 3 * kGranule)) == "G0+3072");
  { const auto writing = gatherer.begin_write(1200, 600); }
  CHECK(text(gatherer.trim(1200, 500)).empty());
  CHECK(text(gatherer.trim(1700, 100)) == "G1024+1024");
  CHECK(gatherer.statistics().held_bytes == 3072);
}

TEST_CASE("a trim excludes ranges that are being written", "[gatherer]") {
  DiscardGatherer gatherer(options());
  {
    const auto one = gatherer.begin_write(1500, 10);
    const auto other = gatherer.begin_write(3500, 10);
    CHECK(text(gatherer.trim(0, 5 * kGranule)) == "G0+1024 G2048+1024 G4096+1024");
  }
  CHECK(gatherer.statistics().held_bytes == 5 * kGranule - 20);
  CHECK(text(gatherer.trim(1500, 10)) == "G1024+1024");
  CHECK(text(gatherer.trim(3500, 10)) == "G3072+1024");
}

TEST_CASE("a flush sends fragments once, and they are still held", "[gatherer]") {
  DiscardGatherer gatherer(options());
  CHECK(text(gatherer.trim(100, 500)).empty());
  CHECK(text(gatherer.trim(2048, 300)).empty());
  CHECK(text(gatherer.flush()) == "t256+256 t2048+256");
  CHECK(text(gatherer.flush()).empty());
  // The rest of a unit. Its first part alone was too small to be sent.
  CHECK(text(gatherer.trim(600, 168)).empty());
  CHECK(text(gatherer.flush()) == "t512+256");
  CHECK(text(gatherer.trim(768, 256)).empty());
  CHECK(text(gatherer.trim(0, 100)) == "G0+1024");
  CHECK(gatherer.statistics().joined_bytes == 924);
}

TEST_CASE("a flush sends no fragments if the layer cannot use them", "[gatherer]") {
  auto with = options();
  with.smallest = kGranule;
  DiscardGatherer gatherer(with);
  CHECK(text(gatherer.trim(1, 1022)).empty());
  CHECK(text(gatherer.flush()).empty());
  CHECK(gatherer.statistics().held_bytes == 1022);
}

TEST_CASE("with zero-fragments, each byte of a fragment is zeroed once", "[gatherer]") {
  auto with = options();
  with.zero_fragments = true;
  DiscardGatherer gatherer(with);
  CHECK(text(gatherer.trim(100, 500)).empty());
  CHECK(text(gatherer.flush()) == "z100+500");
  CHECK(text(gatherer.trim(600, 1)).empty());
  CHECK(text(gatherer.flush()) == "z600+1");
  CHECK(text(gatherer.flush()).empty());
  CHECK(text(gatherer.trim(0, 100)).empty());
  CHECK(text(gatherer.trim(601, 423)) == "G0+1024");
}

TEST_CASE("past the limit, the oldest fragments are dropped", "[gatherer]") {
  auto with = options();
  with.limit = 2;
  DiscardGatherer gatherer(with);
  CHECK(text(gatherer.trim(0, 300)).empty());
  CHECK(text(gatherer.trim(1024, 300)).empty());
  CHECK(text(gatherer.trim(300, 10)).empty());  // no longer the oldest
  CHECK(text(gatherer.trim(2048, 300)) == "t1024+256");
  CHECK(gatherer.statistics().dropped_bytes == 300);
  // Fragments that a flush has sent are dropped first, and are not sent again.
  CHECK(text(gatherer.flush()) == "t0+256 t2048+256");
  CHECK(text(gatherer.trim(5000, 600)).empty());
  CHECK(gatherer.statistics().dropped_bytes == 610);
  CHECK(gatherer.statistics().held == 2);
}

TEST_CASE("with a limit of 0, all fragments are sent at once", "[gatherer]") {
  auto with = options();
  with.limit = 0;
  DiscardGatherer gatherer(with);
  CHECK(text(gatherer.trim(0, 1000)) == "t0+768");
  CHECK(gatherer.statistics().held == 0);
}

TEST_CASE("long trims are split into requests of the largest size", "[gatherer]") {
  constexpr uint64_t kHuge = uint64_t{5} << 30;
  DiscardGatherer gatherer({.size = 2 * kHuge, .granularity = kGranule, .smallest = kGranule});
  CHECK(text(gatherer.trim(0, kHuge)) ==
        "G0+2147483648 G2147483648+2147483648 G4294967296+1073741824");
}

TEST_CASE("a write waits for a trim of its bytes that is being sent", "[gatherer]") {
  DiscardGatherer gatherer(options());
  const bool flush = GENERATE(false, true);
  if (flush) CHECK(text(gatherer.trim(100, 800)).empty());
  auto batch = flush ? gatherer.flush() : gatherer.trim(0, 2 * kGranule);
  const auto piece = batch.next();
  REQUIRE(piece);

  std::promise<void> began;
  auto write = std::async(std::launch::async, [&] {
    began.set_value();
    const auto writing = gatherer.begin_write(piece->offset + piece->length - 1, 10);
  });
  // Requests to other ranges do not wait.
  { const auto writing = gatherer.begin_write(piece->offset + piece->length, 10); }
  { const auto writing = gatherer.begin_write(8 * kGranule, kGranule); }
  began.get_future().wait();
  CHECK(write.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout);
  // A trim excludes bytes of waiting writes, too.
  CHECK(text(gatherer.trim(3 * kGranule, kGranule)) == "G3072+1024");
  CHECK_FALSE(batch.next());
  write.get();
}

TEST_CASE("a write waits only for the piece with its bytes", "[gatherer]") {
  DiscardGatherer gatherer(options());
  const auto between = gatherer.begin_write(1500, 1);
  auto batch = gatherer.trim(0, 3 * kGranule);
  CHECK(batch.next()->offset == 0);
  auto write =
      std::async(std::launch::async, [&] { const auto writing = gatherer.begin_write(100, 10); });
  CHECK(write.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout);
  CHECK(batch.next()->offset == 2048);
  CHECK(write.wait_for(std::chrono::seconds(20)) == std::future_status::ready);
}

TEST_CASE("an error ends a batch, and its pieces are dropped", "[gatherer]") {
  DiscardGatherer gatherer(options());
  {
    const auto writing = gatherer.begin_write(1500, 1);
    auto batch = gatherer.trim(0, 3 * kGranule);
    CHECK(batch.next()->offset == 0);
  }
  // Fragments beside the written bytes stay held.
  CHECK(gatherer.statistics().held_bytes == kGranule - 1);
  // A write does not wait for a piece that was never sent.
  const auto writing = gatherer.begin_write(0, 3 * kGranule);
  CHECK(gatherer.statistics().held == 0);
}

namespace {

// The expected state of each byte: trimmed since its last write, and the trim was sent below.
struct Model {
  std::vector<bool> trimmed;
  std::vector<bool> told;
};

void follow(Model& model, DiscardGatherer::Batch&& batch, const DiscardGatherer::Options& with) {
  while (const auto piece = batch.next()) {
    const uint64_t end = piece->offset + piece->length;
    REQUIRE(end <= with.size);
    if (piece->kind != Kind::kZeroFragment) {
      const uint64_t unit = piece->kind == Kind::kGranules ? with.granularity : with.smallest;
      REQUIRE(piece->offset % unit == 0);
      REQUIRE((end % unit == 0 || end == with.size));
    }
    REQUIRE((piece->kind == Kind::kZeroFragment) <= with.zero_fragments);
    for (uint64_t at = piece->offset; at < end; ++at) {
      if (!model.trimmed[at]) FAIL("byte " << at << " is sent, and was not trimmed");
      model.told[at] = true;
    }
  }
}

// Checks that all trimmed units were sent.
void check_told(const Model& model, uint64_t unit) {
  for (uint64_t begin = 0; begin < model.trimmed.size(); begin += unit) {
    const uint64_t end = std::min<uint64_t>(begin + unit, model.trimmed.size());
    bool trimmed = true;
    bool told = true;
    for (uint64_t at = begin; at < end; ++at) {
      trimmed = trimmed && model.trimmed[at];
      told = told && model.told[at];
    }
    if (trimmed && !told) FAIL("the unit at " << begin << " was trimmed, and never sent");
  }
}

}  // namespace

TEST_CASE("random trims and writes agree with a model", "[gatherer]") {
  const uint64_t seed = support::base_seed();
  const uint64_t count = support::iterations(300);
  for (uint64_t i = 0; i < count; ++i) {
    CAPTURE(seed + i);
    Random random(seed + i);
    auto with = options(2000 + random.below(3000));
    with.smallest = kGranule >> random.below(4);
    with.zero_fragments = random.chance(30);
    const bool limited = random.chance(30);
    if (limited) with.limit = random.below(6);
    DiscardGatherer gatherer(with);
    Model model{std::vector<bool>(with.size), std::vector<bool>(with.size)};
    const uint64_t longest = random.chance(50) ? 300 : 3000;

    for (int step = 0; step < 150; ++step) {
      const uint64_t begin = random.below(with.size);
      const uint64_t length = std::min(with.size - begin, 1 + random.below(longest));
      const auto choice = random.below(100);
      if (choice < 70) {
        for (uint64_t at = begin; at < begin + length; ++at) {
          model.told[at] = model.told[at] && model.trimmed[at];
          model.trimmed[at] = true;
        }
        follow(model, gatherer.trim(begin, length), with);
        // With a limit, it may forget that half of a granule was trimmed.
        if (!limited) check_told(model, with.granularity);
      } else if (choice < 90) {
        const auto writing = gatherer.begin_write(begin, length / 4);
        for (uint64_t at = begin; at < begin + length / 4; ++at)
          model.trimmed[at] = model.told[at] = false;
      } else {
        follow(model, gatherer.flush(), with);
        if (!limited) check_told(model, with.zero_fragments ? 1 : with.smallest);
      }
      REQUIRE(gatherer.statistics().held <= with.limit);
    }
  }
}
