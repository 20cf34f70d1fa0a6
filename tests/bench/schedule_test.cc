#include "bench/schedule.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "tests/catch_text.h"

using namespace vc;

using bench::Load;
using bench::Schedule;
using Kind = bench::Schedule::Turn::Kind;

namespace {

// Returns the offsets that clients get, one after the other.
std::vector<uint64_t> places(const Load& load, uint64_t size) {
  Schedule schedule(load, size);
  std::vector<uint64_t> all;
  for (auto turn = schedule.take(); turn.kind != Kind::kEnd; turn = schedule.take()) {
    REQUIRE(turn.kind == Kind::kRequest);
    all.push_back(turn.at);
    schedule.done();
  }
  return all;
}

}  // namespace

TEST_CASE("a sequential load advances by its step, and wraps around at the end", "[schedule]") {
  Load load;
  load.count = 6;
  load.block = 100;
  CHECK(places(load, 350) == std::vector<uint64_t>{0, 100, 200, 0, 100, 200});
  load.offset = 50;
  CHECK(places(load, 350) == std::vector<uint64_t>{50, 150, 250, 0, 100, 200});
  load.step = 160;
  CHECK(places(load, 350) == std::vector<uint64_t>{50, 210, 20, 180, 0, 160});
  load.span = 210;
  CHECK(places(load, 350) == std::vector<uint64_t>{50, 0, 0, 0, 0, 0});
}

TEST_CASE("a random load depends only on its seed, and covers the whole range", "[schedule]") {
  Load load;
  load.count = 2000;
  load.block = 4096;
  load.offset = 8192;
  load.random = true;
  const uint64_t size = 8192 + 20 * 4096 + 100;
  const auto all = places(load, size);
  CHECK(all == places(load, size));
  const std::set<uint64_t> different(all.begin(), all.end());
  CHECK(different.size() == 20);
  CHECK(*different.begin() == 8192);
  CHECK(*different.rbegin() == 8192 + 19 * 4096);
  CHECK(std::all_of(all.begin(), all.end(), [](uint64_t it) { return it % 4096 == 0; }));
  load.seed = 2;
  CHECK(all != places(load, size));
}

TEST_CASE("requests that do not fit the disk are refused", "[schedule]") {
  Load load;
  load.block = 4096;
  CHECK(Schedule::check(load, 4096));
  CHECK_FALSE(Schedule::check(load, 4095));
  CHECK_FALSE(Schedule::check(load, 0));
  load.offset = 1;
  CHECK_FALSE(Schedule::check(load, 4096));
  load.offset = UINT64_MAX;
  CHECK_FALSE(Schedule::check(load, 4096));
}

TEST_CASE("a flush waits for earlier writes, and delays later ones", "[schedule]") {
  Load load;
  load.write = true;
  load.count = 5;
  load.block = 1;
  load.flush_interval = 2;  // with 4 left, 2 left and none left
  Schedule schedule(load, 100);
  REQUIRE(schedule.take().kind == Kind::kRequest);
  CHECK(schedule.take().kind == Kind::kWait);
  schedule.done();
  CHECK(schedule.take().kind == Kind::kFlush);
  CHECK(schedule.take().kind == Kind::kWait);
  schedule.flushed();
  CHECK(schedule.take().at == 1);
  CHECK(schedule.take().at == 2);
  CHECK(schedule.take().kind == Kind::kWait);
  schedule.done();
  CHECK(schedule.take().kind == Kind::kWait);
  schedule.done();
  CHECK(schedule.take().kind == Kind::kFlush);
  schedule.flushed();
  CHECK(schedule.take().kind == Kind::kRequest);
  CHECK(schedule.take().kind == Kind::kRequest);
  schedule.done();
  schedule.done();
  CHECK(schedule.take().kind == Kind::kFlush);
  schedule.flushed();
  CHECK(schedule.take().kind == Kind::kEnd);
}

TEST_CASE("without draining, a flush delays no request", "[schedule]") {
  Load load;
  load.write = true;
  load.count = 3;
  load.block = 1;
  load.flush_interval = 2;
  load.drain = false;
  Schedule schedule(load, 100);
  CHECK(schedule.take().kind == Kind::kRequest);
  CHECK(schedule.take().kind == Kind::kFlush);
  CHECK(schedule.take().kind == Kind::kRequest);
  CHECK(schedule.take().kind == Kind::kRequest);
}

TEST_CASE("threads get each request once, and end on time", "[schedule]") {
  Load load;
  load.count = 20000;
  load.block = 1;
  Schedule counted(load, 20000);
  std::vector<std::atomic<unsigned>> seen(20000);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (auto turn = counted.take(); turn.kind == Kind::kRequest; turn = counted.take()) {
        ++seen[turn.at];
        counted.done();
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(std::all_of(seen.begin(), seen.end(), [](const auto& it) { return it == 1; }));

  load.count.reset();
  load.duration = std::chrono::milliseconds(30);
  Schedule timed(load, 20000);
  timed.start();
  for (auto turn = timed.take(); turn.kind != Kind::kEnd; turn = timed.take()) timed.done();
  CHECK(Schedule::Clock::now() - timed.begin() >= std::chrono::milliseconds(30));
  CHECK(timed.issued() > 0);
}
