// Tests the gatherer with clients in many threads and a slow layer.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "nbdkit/core/discard_gatherer.h"
#include "tests/catch.h"
#include "tests/support/random.h"

using namespace vc;

using nbdkit::DiscardGatherer;
using Kind = DiscardGatherer::Piece::Kind;
using support::Random;

namespace {

constexpr uint64_t kSize = 24 << 10;
constexpr uint64_t kGranule = 512;
constexpr unsigned kThreads = 6;
// Thread t owns each kThreads-th stripe of the disk, so each granule has parts of all threads.
constexpr uint64_t kStripe = 128;

// A disk that detects concurrent writes and trims of the same byte.
class SlowDisk {
 public:
  void write(uint64_t offset, uint64_t length, uint8_t value, Random& random) {
    enter(offset, length, &Byte::writes, &Byte::trims);
    pause(random);
    for (uint64_t at = offset; at < offset + length; ++at) bytes_[at].value = value;
    leave(offset, length, &Byte::writes);
  }

  void trim(uint64_t offset, uint64_t length, Random& random) {
    enter(offset, length, &Byte::trims, &Byte::writes);
    pause(random);
    for (uint64_t at = offset; at < offset + length; ++at) bytes_[at].value = 0;
    leave(offset, length, &Byte::trims);
  }

  uint8_t at(uint64_t offset) const { return bytes_[offset].value; }
  bool met() const { return met_; }

 private:
  struct Byte {
    std::atomic<uint8_t> value = 0;
    std::atomic<uint8_t> writes = 0;
    std::atomic<uint8_t> trims = 0;
  };
  using Counter = std::atomic<uint8_t> Byte::*;

  void enter(uint64_t offset, uint64_t length, Counter mine, Counter others) {
    for (uint64_t at = offset; at < offset + length; ++at) {
      ++(bytes_[at].*mine);
      if (bytes_[at].*others != 0) met_ = true;
    }
  }
  void leave(uint64_t offset, uint64_t length, Counter mine) {
    for (uint64_t at = offset; at < offset + length; ++at) --(bytes_[at].*mine);
  }
  static void pause(Random& random) {
    if (random.chance(50)) std::this_thread::sleep_for(std::chrono::microseconds(random.below(60)));
  }

  std::unique_ptr<Byte[]> bytes_ = std::make_unique<Byte[]>(kSize);
  std::atomic<bool> met_ = false;
};

void send(DiscardGatherer::Batch&& batch, SlowDisk& disk, Random& random) {
  while (const auto piece = batch.next()) {
    disk.trim(piece->offset, piece->length, random);
    // The layer fails sometimes.
    if (random.chance(2)) break;
  }
}

struct Outcome {
  std::atomic<uint64_t> lost = 0;
  std::atomic<uint64_t> most_held = 0;
};

// A client that knows its last write to each byte of its stripes. 0: trimmed since.
void run_client(DiscardGatherer& gatherer, SlowDisk& disk, unsigned self, uint64_t seed,
                bool everywhere, Outcome& outcome) {
  Random random(seed + self);
  std::vector<uint8_t> model(kSize);
  for (int step = 0; step < 200; ++step) {
    const uint64_t stripe = random.below(kSize / kStripe / kThreads) * kThreads + self;
    const uint64_t begin = stripe * kStripe;
    const auto choice = random.below(100);
    if (choice < 60) {
      const auto writing = [&] {
        // With `everywhere`, clients share bytes. Their order is undefined, but a write and a trim
        // must not overlap.
        return everywhere ? random.below(kSize - 2 * kGranule) : begin;
      }();
      const uint64_t length = everywhere ? 1 + random.below(2 * kGranule) : kStripe;
      send(gatherer.trim(writing, length), disk, random);
      if (!everywhere) std::fill_n(model.begin() + begin, kStripe, 0);
    } else if (choice < 95) {
      const uint64_t offset = begin + random.below(kStripe);
      const uint64_t length = 1 + random.below(begin + kStripe - offset);
      const auto value = static_cast<uint8_t>(1 + random.below(255));
      {
        const auto guard = gatherer.begin_write(offset, length);
        disk.write(offset, length, value, random);
      }
      std::fill_n(model.begin() + offset, length, value);
    } else {
      send(gatherer.flush(), disk, random);
    }
    const uint64_t held = gatherer.statistics().held;
    uint64_t most = outcome.most_held;
    while (held > most && !outcome.most_held.compare_exchange_weak(most, held)) {
    }
    if (everywhere) continue;
    for (uint64_t at = 0; at < kSize; ++at)
      if (model[at] != 0 && disk.at(at) != model[at]) ++outcome.lost;
  }
}

void run_clients(uint64_t seed, const DiscardGatherer::Options& options, bool everywhere,
                 uint64_t& joined) {
  CAPTURE(seed, options.limit, options.zero_fragments, everywhere);
  DiscardGatherer gatherer(options);
  SlowDisk disk;
  Outcome outcome;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (unsigned t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] { run_client(gatherer, disk, t, seed, everywhere, outcome); });
  for (auto& it : threads) it.join();
  CHECK_FALSE(disk.met());
  CHECK(outcome.lost == 0);
  CHECK(outcome.most_held <= options.limit);
  joined += gatherer.statistics().joined_bytes;
}

}  // namespace

TEST_CASE("no byte that was written is trimmed afterwards", "[gatherer]") {
  const uint64_t seed = support::base_seed();
  const uint64_t count = support::iterations(20);
  uint64_t joined = 0;
  for (uint64_t i = 0; support::more_iterations(i, count, joined > 0); ++i) {
    Random random(seed + i);
    DiscardGatherer::Options options{.size = kSize, .granularity = kGranule, .smallest = kGranule};
    options.smallest >>= random.below(6);
    options.zero_fragments = random.chance(50);
    if (random.chance(50)) options.limit = random.below(20);
    run_clients(seed + i, options, false, joined);
    run_clients(seed + i, options, true, joined);
  }
  CHECK(joined > 0);
}
